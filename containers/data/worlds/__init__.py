"""Builtin worlds: corpora, lessons, judgements and problems made from a seed, so that the default needs no download.

`generate("travel", "problems", 0)` yields rows in the role's columns, with their split. Test rows differ from training
rows in numbers, names, objects and combinations of phrases, and no training row shares 13 words in a row with one.
"""

import difflib
from collections.abc import Iterator
from typing import Any

from containers.contract import Role, StageError
from containers.data.worlds import arithmetic, desk, facts, harm, shop, stories, talk, travel
from containers.data.worlds.rows import Rows
from containers.data.worlds.world import World

WORLDS: dict[str, World] = {
    module.WORLD.word: module.WORLD for module in (stories, desk, arithmetic, travel, shop, facts, harm, talk)
}


def generate(world: str, role: Role, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of one world in one role, splits mixed; the same seed gives the same rows.

    Raises StageError for a world that does not exist or has nothing for this role.
    """
    if world not in WORLDS:
        near = difflib.get_close_matches(world, WORLDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(WORLDS)}"
        raise StageError(f"there is no builtin world {world!r}: {hint}")
    if role not in WORLDS[world].sizes:
        raise StageError(f"the builtin world {world!r} has no {role}: it has {', '.join(WORLDS[world].sizes)}")
    return iter(Rows(WORLDS[world], role, seed))
