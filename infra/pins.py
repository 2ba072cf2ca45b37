"""`store:<address>` in a recipe: an artifact that an earlier run made, used as it is, whatever the code is by now.

The stage run that made it is told of as one that was reused, so that the report, the lineage and pruning know of it.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from containers.contract import Artifact, StageError
from infra.launch import current_launch
from infra.stage_runner import tell_reused
from infra.store import StoreError

A = TypeVar("A", bound=Artifact)
PREFIX = "store:"


def is_pin(text: object) -> bool:
    """Whether a value of a recipe names an artifact in the store."""
    return isinstance(text, str) and text.startswith(PREFIX)


def pinned_artifact(pin: str, kind: type[A], place: str) -> A:
    """Return the artifact of this kind that `pin` names; raises StageError naming its `place` in the recipe."""
    store = current_launch().store
    try:
        published = store.load(pin.partition("/")[0])
        artifact = store.artifact(pin)
    except (StoreError, ValidationError) as error:
        raise StageError(f"{place}: {error}") from error
    if not isinstance(artifact, kind):
        word = kind.__name__.lower()
        raise StageError(f"{place}: {pin} is of kind {type(artifact).__name__.lower()}, and a {word} is needed here")
    tell_reused(published)
    return artifact


def pins_in(config: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield (place in the recipe, pin) for each pin of a resolved recipe."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield from pins_in(value, f"{place}.{key}" if place else str(key))
    if is_pin(config):
        yield place, config
