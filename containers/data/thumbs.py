"""Thumbs: an answer to a prompt that somebody liked or did not (`prompt`, `completion`, `label`; KTO's columns).

What people leave on the chat page (feedback.jsonl) has this shape. Among instructions a liked answer is a lesson and
another is none. Among preferences each liked answer is set against each disliked one to the same prompt.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from containers.data.conversations import messages_of
from containers.data.records import Bad, Record, Reject
from containers.data.source import SourceConfig
from containers.formats import Message

SHAPE = "unpaired"
WORDS = {"true": True, "false": False, "up": True, "down": False}


def thumb_of(label: Any) -> bool | None:
    """Return whether a label says that the answer is liked, None where it is no thumb."""
    return label if isinstance(label, bool) else WORDS.get(str(label).strip().lower())


def liked(values: Mapping[str, Any]) -> bool:
    """Return what the record's thumb says; raises Bad where it is none."""
    thumb = thumb_of(values.get("label"))
    if thumb is None:
        raise Bad("`label` is neither true nor false")
    return thumb


def lessons(records: Iterable[Record | Reject], counts: Counter[str]) -> Iterator[Record | Reject]:
    """Leave out the answers that were not liked, and count them."""
    for record in records:
        if isinstance(record, Record) and thumb_of(record.values.get("label")) is False:
            counts["thumbs_down_left_out"] += 1
        else:
            yield record


@dataclass
class Votes:
    """What all people think of one answer."""

    source: int
    place: Record
    prompt: list[Message]
    answer: list[Message]
    balance: int = 0
    """Thumbs up, less thumbs down."""


@dataclass
class Thumbs:
    """Gathers the thumbs of all sources, then tells the pairs."""

    prompts: dict[str, dict[str, Votes]] = field(default_factory=dict)
    """Prompt -> answer -> votes."""
    taken: Counter[tuple[int, str]] = field(default_factory=Counter)
    """(index of the source, file) -> thumbs."""

    def gather(self, index: int, records: Iterable[Record | Reject], source: SourceConfig) -> Iterator[Reject]:
        """Take the thumbs of a file, as many as its source wants; yield what cannot be used, with the reason."""
        for record in records:
            taken = sum(count for (one, _), count in self.taken.items() if one == index)
            if source.max_rows is not None and taken >= source.max_rows:
                return
            if isinstance(record, Reject):
                yield record
                continue
            try:
                self._take(index, record, source.roles)
                self.taken[index, record.file] += 1
            except Bad as bad:
                yield Reject(record.file, record.line, str(bad))

    def _take(self, index: int, record: Record, roles: Mapping[str, str]) -> None:
        thumb = liked(record.values)
        prompt = messages_of(record.values.get("prompt"), roles)
        said = record.values.get("completion")
        spoken = said if isinstance(said, list) else [{"role": "assistant", "content": said}]
        answer = messages_of(spoken, roles)
        votes = self.prompts.setdefault(json.dumps(prompt), {}).setdefault(
            json.dumps(answer), Votes(index, record, prompt, answer)
        )
        votes.balance += 1 if thumb else -1

    def pairs(self, counts: Counter[str]) -> Iterator[tuple[int, Record]]:
        """Yield (source, record of `prompt`, `chosen`, `rejected`) of each two; count the answers that make no pair."""
        for answers in self.prompts.values():
            better = [votes for votes in answers.values() if votes.balance > 0]
            worse = [votes for votes in answers.values() if votes.balance < 0]
            for one, other in product(better, worse):
                values = {"prompt": one.prompt, "chosen": one.answer, "rejected": other.answer}
                yield one.source, one.place._replace(values=values | {"task": one.place.values.get("task")})
            if not (better and worse):
                counts["thumbs_without_a_counterpart"] += len(answers)
