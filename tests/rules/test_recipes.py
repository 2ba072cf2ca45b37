"""Every recipe loads, says what it is, and survives a round trip through JSON."""

import pytest

from flows.recipe import Recipe, load_recipe, recipe_names


def test_there_are_recipes() -> None:
    assert {"tiny", "real-small", "real-aligned", "qwen-lora", "support-qlora"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_loads_and_round_trips(name: str) -> None:
    recipe = load_recipe(name, variables={"SLIPWAY_DATA": "data"})
    assert recipe.description
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
