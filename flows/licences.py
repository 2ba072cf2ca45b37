"""Under which licence a recipe's base model and data come, and the refusal of those that the recipe forbids.

A licence is what the recipe says (`licence:` beside a source or the checkpoint), else what the card of the folder that
is used says: `license:` in the front matter of its README.md, as dataset and model cards of the Hugging Face hub have.
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import yaml

from containers.contract import StageError
from infra.pins import is_pin

GENERATED, UNKNOWN = "generated", "unknown"
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)


class Named(Protocol):
    """A recipe."""

    @property
    def data(self) -> Any:
        """The sources of each role."""

    @property
    def checkpoint(self) -> Any:
        """What training starts from, None where it starts from text."""


def licences_of(recipe: Named) -> dict[str, str]:
    """Return part -> licence of everything that the recipe's model is made of; raises StageError for a broken card."""
    return dict(found_in(recipe))


def found_in(recipe: Named) -> Iterator[tuple[str, str]]:
    """Yield (part, licence); a part is named by its place in the recipe, no path of this machine in it."""
    if recipe.checkpoint:
        path = str(recipe.checkpoint.path)
        yield f"checkpoint: {shown(path)}", recipe.checkpoint.licence or written_in(path)
    for role in type(recipe.data).model_fields:
        given = getattr(recipe.data, role)
        for source in given.sources if given else ():
            if source.builtin:
                yield f"data.{role}: builtin {source.builtin}", source.licence or GENERATED
                continue
            path = str(source.path or source.hub)
            yield f"data.{role}: {shown(path)}", source.licence or written_in(path)


def shown(path: str) -> str:
    """Return what a source is called: its hub name or pin, or the name of its file or folder."""
    outside = Path(path).is_absolute() or Path(path).exists()
    return Path(path).name if outside and not is_pin(path) else path


def written_in(path: str) -> str:
    """Return the licence that the card of a folder (or of a file's folder) names; `unknown` where there is none."""
    place = Path(path)
    card = (place if place.is_dir() else place.parent) / "README.md"
    if is_pin(path) or not place.exists() or not card.is_file():
        return UNKNOWN
    front = FRONT_MATTER.search(card.read_text(encoding="utf-8", errors="replace"))
    try:
        found = yaml.safe_load(front[1]) if front else {}
    except yaml.YAMLError as error:
        raise StageError(f"{card}: the front matter is not YAML: {error}") from error
    named = found.get("license", UNKNOWN) if isinstance(found, dict) else UNKNOWN
    return " AND ".join(map(str, named)) if isinstance(named, list) else str(named)


def refuse_forbidden(licences: dict[str, str], forbidden: tuple[str, ...]) -> None:
    """Raise StageError naming every part whose licence matches a pattern of `forbidden`, case aside."""
    wrong = [
        f"{part} comes under {licence}, which forbid_licences {pattern!r} forbids"
        for part, licence in licences.items()
        for pattern in forbidden
        if fnmatchcase(licence.lower(), pattern.lower())
    ]
    if wrong:
        raise StageError(
            "; ".join(wrong) + ": use another source, say its `licence` in the recipe where the card is wrong or "
            "silent, or take the pattern out of forbid_licences"
        )
