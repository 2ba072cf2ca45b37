"""A recipe and its data, looked at before anything is trained: `slipway check`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.board import Board
from flows.recipe import load_recipe
from infra.embedded import prefect_environment
from infra.launch import Launch, launching
from infra.runners.process import ProcessRunner
from infra.settings import Settings
from infra.store import Store

SHOWN_REJECTS = 3


def check_recipe(name: str, overrides: Sequence[str]) -> None:
    """Clean the recipe's data (kept for the run that follows) and print what was found, role by role."""
    settings, console = Settings(), Console()
    recipe = load_recipe(name, overrides)
    os.environ.update(prefect_environment(settings))
    from flows.chapters import prepare

    board = Board(console)
    launch = Launch(settings, Store(settings.store), ProcessRunner(settings, ("data",)), (board,))
    with launching(launch), board:
        prepare(recipe.data)
    for record in launch.stages:
        show_card(console, settings.store / record.address / "outputs" / "card")


def show_card(console: Console, folder: Path) -> None:
    """Print a dataset's card: files with their formats, what each step took, rejects with reasons."""
    card: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    console.print(f"\n[bold]{card['role']}[/]  " + ", ".join(f"{n:,} {split}" for split, n in card["rows"].items()))
    files = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in card["files"][0] if card["files"] else ():
        files.add_column(column)
    for seen in card["files"]:
        files.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in seen.values()))
    if card["files"]:
        console.print(files)
    console.print("steps    " + ", ".join(f"{step} {rows:,}" for step, rows in card["steps"].items()), highlight=False)
    for reason, count in card["rejects"].items():
        console.print(f"rejected {count:,}: {reason}", highlight=False, markup=False)
    for line in (folder / "rejects.jsonl").read_text(encoding="utf-8").splitlines()[:SHOWN_REJECTS]:
        console.print(f"  {line}", highlight=False, markup=False, overflow="ellipsis", no_wrap=True)
    console.print(f"page: {(folder / 'card.html').as_uri()}", highlight=False, soft_wrap=True)
