"""Who is held out: a split by hash that neither a huge document nor a tiny dataset can spoil."""

from typing import Any

import numpy as np
import numpy.typing as npt

from containers.contract import Role
from containers.data.contract import DataConfig
from containers.data.spool import TEST, TRAIN, VALIDATION

Splits = npt.NDArray[np.int8]
Tail = dict[int, float]
"""Split -> share of a document's characters that is cut from its end for it."""


def split_of(group: int, validation_share: float, test_share: float) -> int:
    """Return the split of a hash: the first shares of the hash range are held out."""
    place = group / 2**64
    if place < test_share:
        return TEST
    return VALIDATION if place < test_share + validation_share else TRAIN


def asked_for(config: DataConfig) -> list[tuple[int, float]]:
    """Return (split, share) of the held-out splits that a recipe wants."""
    return [(s, share) for s, share in ((TEST, config.test_share), (VALIDATION, config.validation_share)) if share]


def balanced(marks: npt.NDArray[Any], kept: npt.NDArray[np.bool_], config: DataConfig, role: Role) -> Splits:
    """Return the splits with two faults of small sets mended; rows of worlds stay where the world put them.

    A document larger than its split's whole share of the characters goes to training; a split that then holds less than
    half of its share gets the questions of lowest hash among the rows that fit it, until it does; training keeps most.
    """
    splits: Splits = marks["split"].copy()
    own = kept & ~marks["builtin"]
    total = int(marks["size"][kept].sum())
    for split, share in asked_for(config):
        fits = (marks["size"] <= share * total) | (role != "corpus")
        splits[own & (splits == split) & ~fits] = TRAIN
        lacking = share * total / 2 - int(marks["size"][kept & (splits == split)].sum())
        if lacking > 0:
            fitting = marks[own & (splits == TRAIN) & fits]
            questions, places = np.unique(fitting["group"], return_inverse=True)
            reached = np.cumsum(np.bincount(places, weights=fitting["size"], minlength=1))
            chosen = questions[: min(int(np.searchsorted(reached, lacking)) + 1, questions.size // 2)]
            splits[own & np.isin(marks["group"], chosen)] = split
    return splits


def tails_of(marks: npt.NDArray[Any], kept: npt.NDArray[np.bool_], config: DataConfig) -> dict[int, Tail]:
    """Return row -> tail for the longest document, where a corpus is too few documents to hold any out whole."""
    empty = {split: share for split, share in asked_for(config) if not (kept & (marks["split"] == split)).any()}
    if not empty:
        return {}
    return {int(np.argmax(np.where(kept, marks["size"], -1))): empty}


def divided(text: str, tail: Tail) -> list[tuple[int, str]]:
    """Return (split, part) of a document: training first, then each tail, cut at line ends (or at a space)."""
    parts, rest, size = [], text, len(text)
    for split, share in tail.items():
        near = len(rest) - round(share * size)
        at = max(rest.rfind("\n", 0, near), 0) or max(rest.rfind(" ", 0, near), 0)
        parts.append((split, rest[at:].strip()))
        rest = rest[:at]
    return [(split, part) for split, part in ((TRAIN, rest.strip()), *reversed(parts)) if part]
