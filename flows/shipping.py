"""What a run ships: its last model whole, or its base once and every adapter beside it (`package.adapters`)."""

from typing import NamedTuple

from containers.contract import Adapter, Model, StageError
from containers.unmerged import Taught, Unmerged
from flows.alignment import Aligned
from flows.recipe import Recipe
from tasks.convert import convert


class Shipped(NamedTuple):
    """The weights that are quantized, and the adapters that stay beside them."""

    weights: Model
    beside: Unmerged | None


def shipped(base: Model, tuned: Model | Adapter, aligned: Aligned, recipe: Recipe) -> Shipped:
    """Return what the recipe ships of a base, of what sft made of it, and of what alignment made of that.

    Raises StageError where adapters are to stay beside a base and sft made none (a whole model that is released).
    """
    if recipe.package.adapters == "merged":
        return Shipped(aligned.last, None)
    if not isinstance(tuned, Adapter):
        raise StageError("package.adapters is unmerged, and this is a whole model: set it to merged")
    adapters = {"chat": tuned}
    models: dict[str, tuple[str, ...]] = {"chat": ("chat",)}
    for name, step in aligned.steps.items():
        if isinstance(step.tuned, Adapter) and step.on in models:
            adapters[name] = step.tuned
            models[name] = (*models[step.on], name)
    return Shipped(base, convert(base, Taught(adapters, models, aligned.name, aligned.last), recipe.convert))
