"""What a world is made of: exchanges (a question and its reply), documents, and the three splits they are drawn for."""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from containers.contract import Role, Split

T = TypeVar("T")
RUN = 13
"""Words: a training row that shares a run this long with a test row is not made (decontamination would drop it)."""

KNOWN = (
    "Mia", "Tom", "Nora", "Ben", "Lily", "Sam", "Zoe", "Max", "Emma", "Leo", "Anna", "Jack", "Ruth", "Paul", "Kate",
    "Finn", "Maya", "Luke", "Sara", "Owen", "Ella", "Noah", "Rosa", "Dan", "Ivy", "Adam", "June", "Carl", "Ned",
)  # fmt: skip
NAMES: dict[Split, tuple[str, ...]] = {
    "train": KNOWN,
    "validation": KNOWN,
    "test": ("Edith", "Marco", "Priya", "Oscar", "Gwen", "Tariq", "Wanda", "Felix"),
}
"""First names of people in questions; a test question is about people that no training row knows."""


@dataclass(frozen=True)
class Exchange:
    """One question and one reply."""

    task: str
    question: str
    reply: str
    answer: str | None = None
    """The bare final answer, where the reply can be checked."""
    worse: str | None = None
    """A reply that people like less."""


@dataclass(frozen=True)
class World:
    """One builtin source: how it draws exchanges and documents, and how many of each."""

    word: str
    sizes: Mapping[Role, int]
    """Training rows per role; a role that is absent is refused."""
    held_out: int
    """Test rows to draw per role (the same one drawn twice counts once); validation has half as many."""
    exchange: Callable[[Random, Split, Role], Exchange] | None = None
    document: Callable[[Random, Split], str] | None = None
    """One corpus text."""


def split_of(*key: object) -> Split:
    """Return the split that owns `key` (numbers, a fact): 15% test, 10% validation, the rest train."""
    bucket = zlib.crc32(repr(key).encode()) % 20
    return "test" if bucket < 3 else "validation" if bucket < 5 else "train"


def drawn(make: Callable[[], T], property_of: Callable[[T], object], wanted: object) -> T:
    """Return the first of `make()`'s values that has the wanted property: for the most part, its split."""
    while property_of(value := make()) != wanted:
        pass
    return value


def phrased(rng: Random, split: Split, first: Sequence[str], second: Sequence[str]) -> tuple[str, str]:
    """Return one of `first` and one of `second`; every fifth diagonal of that table is kept for the test.

    Each part is known from training, the combination is not.
    """
    cells = [(i, j) for i in range(len(first)) for j in range(len(second)) if ((i + j) % 5 == 4) == (split == "test")]
    i, j = rng.choice(cells)
    return first[i], second[j]


def runs_of(text: str) -> set[tuple[str, ...]]:
    """Return every run of RUN words in `text`, case and punctuation aside."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}


def sentence(text: str) -> str:
    """Return `text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def varied(rng: Random, split: Split, text: str) -> str:
    """Return `text` with each `[a|b|c]` replaced by one of its alternatives.

    Neighbours whose places add up to 2 (modulo 3) are kept for the test, so that long runs of words differ there too.
    """
    last = rng.randrange(3)

    def pick(match: re.Match[str]) -> str:
        nonlocal last
        choices = match[1].split("|")
        allowed = [i for i in range(len(choices)) if ((last + i) % 3 == 2) == (split == "test")]
        last = rng.choice(allowed or range(len(choices)))
        return choices[last]

    return re.sub(r"\[([^]]*)\]", pick, text)
