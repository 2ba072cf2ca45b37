"""The parameters of the flows as the Prefect UI asks for them: a dropdown of recipes, changes, a model of the store.

Prefect's server holds every run that is asked for to the same schema, so that a misspelt recipe is refused at once.
"""

from typing import Annotated, Any

import yaml
from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from flows.recipe import RECIPES, recipe_names


class RecipeChoice:
    """Shows a recipe's name as a dropdown of those built in (of these flows), or as the path of a file."""

    def __init__(self, *flows: str) -> None:
        """Offer the recipes of `flows`."""
        self.flows = flows

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema; the folder of recipes is read now, not when this module is imported."""
        names = [name for name in recipe_names() if flow_of(name) in self.flows]
        return {
            "anyOf": [
                {"type": "string", "enum": names, "title": "Built in"},
                {"type": "string", "pattern": r"\.ya?ml$", "title": "File", "description": "Path of a recipe file."},
            ]
        }


class Pattern:
    """Holds a text to a pattern in the form alone: in a call of the flow, the flow's own messages say what is wrong."""

    def __init__(self, pattern: str) -> None:
        """Ask for texts that match the regular expression `pattern` somewhere."""
        self.pattern = pattern

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of a text with the pattern added."""
        return {**handler(schema), "pattern": self.pattern}


def flow_of(name: str) -> str:
    """Return which flow a built-in recipe is for."""
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return str(values.get("flow", "train_llm"))


TrainingRecipe = Annotated[str, RecipeChoice("train_llm")]
AdaptingRecipe = Annotated[str, RecipeChoice("adapt_model")]
AnyRecipe = Annotated[str, RecipeChoice("train_llm", "adapt_model")]
Overrides = tuple[Annotated[str, Pattern(r"^[\w-]+(\.[\w-]+)*=")], ...]
StoredModel = Annotated[str, Pattern("^store:")]
