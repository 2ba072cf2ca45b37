"""People's rankings of candidate answers -> preference pairs: all ordered pairs, several raters by majority.

Two shapes are read. Ours: `prompt`, `candidates` and either `ranking` (places in `candidates`, best first) or `ranks`
(a number for each candidate, 1 the best, ties allowed), with `rater`. And Label Studio's JSON export (`label_studio`).
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import isfinite
from typing import Any, NamedTuple

from containers.contract import StageError
from containers.data.agreement import Verdict, agreement_of
from containers.data.conversations import content_of, messages_of
from containers.data.label_studio import annotated
from containers.data.records import Bad, Record, Reject
from containers.data.source import SourceConfig
from containers.formats import Message

RANKED = ("ranking", "label_studio")
"""Shapes whose records are rankings."""
VERSION = 1
"""Of `candidates.jsonl`."""
SPLITS = ("train", "validation", "test")


class Ranking(NamedTuple):
    """What one person thinks of the answers to one prompt."""

    prompt: list[Message]
    ranks: dict[str, float]
    """Answer -> rank; the lower, the better."""
    rater: str | None
    values: Mapping[str, Any]
    """The columns beside it: `task`, `split`."""


@dataclass
class Item:
    """One prompt with its candidates, and everyone's ranks."""

    source: int
    place: Record
    prompt: list[Message]
    values: Mapping[str, Any]
    ranks: dict[str, dict[str, float]] = field(default_factory=dict)
    """Rater -> answer -> rank."""

    def verdicts(self) -> Iterator[tuple[str, str, list[Verdict]]]:
        """Yield (answer, other answer, each rater's verdict) for every two candidates."""
        for one, other in combinations(next(iter(self.ranks.values())), 2):
            yield one, other, [(r[one] < r[other]) - (r[one] > r[other]) for r in self.ranks.values()]


class Rankings:
    """Gathers the rankings of all sources, then tells the pairs."""

    def __init__(self) -> None:
        """Begin empty."""
        self.items: dict[str, Item] = {}
        self.taken: Counter[tuple[int, str]] = Counter()
        """(index of the source, file) -> rankings."""
        self.raters: set[str] = set()
        self.unranked = 0

    def gather(
        self, index: int, shape: str, records: Iterable[Record | Reject], source: SourceConfig
    ) -> Iterator[Reject]:
        """Take the rankings of a file, as many as its source wants; yield what cannot be used, with the reason."""
        for record in records:
            if source.max_rows is not None and self.taken_of(index) >= source.max_rows:
                return
            if isinstance(record, Reject):
                yield record
                continue
            for ranking in read(shape, record, source.roles):
                if ranking is None:
                    self.unranked += 1
                    continue
                fault = ranking if isinstance(ranking, str) else self.take(index, record, ranking)
                if fault:
                    yield Reject(record.file, record.line, fault)

    def taken_of(self, index: int) -> int:
        """Return how many rankings a source gave."""
        return sum(count for (source, _), count in self.taken.items() if source == index)

    def take(self, index: int, record: Record, ranking: Ranking) -> str:
        """Keep a ranking; return why it cannot be, or nothing."""
        key = json.dumps([ranking.prompt, sorted(ranking.ranks)])
        rater = ranking.rater or f"{record.file}:{record.line}"
        item = self.items.get(key)
        if item is None:
            item = self.items[key] = Item(index, record, ranking.prompt, ranking.values)
        elif rater in item.ranks:
            return "a second ranking of the same candidates by the same rater"
        item.ranks[rater] = ranking.ranks
        self.raters.add(rater)
        self.taken[index, record.file] += 1
        return ""

    def pairs(self) -> Iterator[tuple[int, Record]]:
        """Yield (source, record of `prompt`, `chosen`, `rejected`) for each two answers of which most prefer one.

        Raises StageError where there are candidates and nobody has ranked any.
        """
        if self.unranked and not self.items:
            raise StageError(
                f"none of the {self.unranked} sets of candidates is ranked yet: put the places of `candidates`, best "
                "first, in `ranking`"
            )
        for item in self.items.values():
            for one, other, verdicts in item.verdicts():
                winner = majority(verdicts)
                if winner:
                    chosen, rejected = (one, other) if winner > 0 else (other, one)
                    values = {"prompt": item.prompt, "chosen": chosen, "rejected": rejected}
                    yield item.source, item.place._replace(values={**item.values, **values})

    def card(self) -> dict[str, Any]:
        """Return what the data card says of the rankings; nothing where there are none."""
        if not self.items:
            return {}
        every = [verdicts for item in self.items.values() for _, _, verdicts in item.verdicts()]
        return {
            "rankings": sum(self.taken.values()),
            "unranked": self.unranked,
            "raters": len(self.raters),
            "items": len(self.items),
            "ranked_by_several": sum(len(item.ranks) > 1 for item in self.items.values()),
            "pairs": sum(majority(verdicts) != 0 for verdicts in every),
            "tied": sum(not any(verdicts) for verdicts in every),
            "without_majority": sum(any(verdicts) and not majority(verdicts) for verdicts in every),
            "agreement": agreement_of(every),
        }


def majority(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict that more than half of the raters give, 0 (a tie) where none is."""
    return next((winner for winner in (1, -1) if 2 * verdicts.count(winner) > len(verdicts)), 0)


def read(shape: str, record: Record, roles: Mapping[str, str]) -> Iterator[Ranking | str | None]:
    """Yield each ranking of a record, None for one not given yet, or the reason why it is none."""
    try:
        sheets = annotated(record.values) if shape == "label_studio" else [record.values]
    except Bad as bad:
        yield str(bad)
        return
    for sheet in sheets:
        try:
            yield ranking_of(sheet, roles)
        except Bad as bad:
            yield str(bad)


def ranking_of(values: Mapping[str, Any], roles: Mapping[str, str]) -> Ranking | None:
    """Return the ranking of a record in our shape, None where nobody has ranked it yet; raises Bad."""
    if values.get("version", VERSION) != VERSION:
        raise Bad(f"candidates of version {values['version']}, where version {VERSION} is read")
    listed = values.get("candidates")
    if not isinstance(listed, list) or len(listed) < 2:
        raise Bad("`candidates` is no list of two answers or more")
    answers = [content_of(answer).strip() for answer in listed]
    if not all(answers) or len(set(answers)) < len(answers):
        raise Bad("a candidate is empty, or stands twice")
    ranking, ranks = values.get("ranking"), values.get("ranks")
    if ranking is None and ranks is None:
        return None
    if ranking is not None and ranks is not None:
        raise Bad("both `ranking` and `ranks` are given: give one")
    found = places_in(ranking, len(answers)) if ranks is None else numbers_in(ranks, len(answers))
    prompt = messages_of(values.get("prompt"), roles)
    rater = values.get("rater")
    kept = {"task": values.get("task"), "split": values.get("split") if values.get("split") in SPLITS else None}
    return Ranking(prompt, dict(zip(answers, found, strict=True)), None if rater is None else str(rater), kept)


def places_in(ranking: Any, count: int) -> list[float]:
    """Return the rank of each candidate from places in order, best first; raises Bad."""
    whole = isinstance(ranking, list) and all(type(place) is int for place in ranking)
    if not whole or sorted(ranking) != list(range(count)):
        raise Bad(f"`ranking` does not name each place from 0 to {count - 1} once, best first")
    return [float(ranking.index(place)) for place in range(count)]


def numbers_in(ranks: Any, count: int) -> list[float]:
    """Return the ranks as they are given; raises Bad."""
    numbers = isinstance(ranks, list) and all(type(rank) in (int, float) and isfinite(rank) for rank in ranks)
    if not numbers or len(ranks) != count:
        raise Bad(f"`ranks` holds no number for each of the {count} candidates")
    return [float(rank) for rank in ranks]
