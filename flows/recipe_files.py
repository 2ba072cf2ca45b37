"""Recipes as files: list them, write a new one, print their schema."""

import json
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from flows.recipe import Recipe, RecipeError, load_recipe, recipe_file, recipe_names


def list_recipes() -> None:
    """Print each built-in recipe with its one line."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=False)
    for name in recipe_names():
        values = yaml.safe_load(recipe_file(name).read_text(encoding="utf-8"))
        table.add_row(name, values.get("flow", "train_llm"), values.get("description", ""))
    Console().print(table)


def write_new(file: Path, source: str) -> None:
    """Copy the recipe called `source` to `file`; raises RecipeError when the file is there already."""
    if file.exists():
        raise RecipeError(f"{file} is there already: choose another name, or remove it first")
    text = recipe_file(source).read_text(encoding="utf-8")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    load_recipe(str(file)) if "${" not in text else None
    print(f"{file}: a copy of {source}. Edit it, then `slipway check {file}` and `slipway run {file}`.")


def print_schema() -> None:
    """Print the JSON schema of a recipe."""
    print(json.dumps(Recipe.model_json_schema(), indent=1))
