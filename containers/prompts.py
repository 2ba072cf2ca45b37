"""Prompts of a data set: what stands before the last answer of each row, whatever the role, with the row's split."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from containers.contract import Dataset, Split, StageError
from containers.formats import Message, rows_of


@dataclass(frozen=True)
class Prompt:
    """Turns that end with the user."""

    id: str
    """The row's own, or a hash of the turns."""
    split: Split
    task: str | None
    messages: list[Message]


def prompts_in(dataset: Dataset, count: int | None, seed: int) -> list[Prompt]:
    """Return each different prompt once, or `count` of them drawn by seed, in the order of the rows.

    A prompt in two splits stands in the held-out one. Raises StageError where there is none.
    """
    if dataset.role == "corpus":
        raise StageError("prompts: a corpus asks nothing: give instructions, problems or preferences")
    found: dict[str, Prompt] = {}
    for split in reversed(get_args(Split)):
        for row in rows_of(dataset, split).to_pylist():
            turns = turns_of(row)
            if turns:
                key = json.dumps(turns)
                name = row["id"] or hashlib.sha256(key.encode()).hexdigest()[:16]
                found.setdefault(key, Prompt(name, split, row["task"], turns))
    prompts = list(found.values())
    if not prompts:
        raise StageError("prompts: no row asks anything: give instructions, problems or preferences with rows in them")
    if count is not None and count < len(prompts):
        prompts = [prompts[i] for i in sorted(random.Random(seed).sample(range(len(prompts)), count))]
    return prompts


def turns_of(row: dict[str, Any]) -> list[Message]:
    """Return the turns of a row up to the user's last question; none where the user asks nothing."""
    turns: Sequence[Message] = row["prompt"] if "prompt" in row else row["messages"]
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
    return list(turns[: last + 1])
