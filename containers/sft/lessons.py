"""Instruction rows -> lessons: token ids and what of them is trained, cut to the length that is learnt."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from containers.contract import Dataset, Split
from containers.formats import ChatFormat, Message, Rendered, rows_of


@dataclass
class Lessons:
    """What training sees of one split, and what it does not."""

    kept: list[Rendered] = field(default_factory=list)
    conversations: list[Sequence[Message]] = field(default_factory=list)
    """The whole conversation of each kept lesson."""
    truncated: int = 0
    """Kept lessons that lost their end: no end-of-turn token is put in its place."""
    dropped_empty: int = 0
    """Conversations without a trained token in their first `max_length` tokens."""


def read_lessons(instructions: Dataset, split: Split, chat: ChatFormat, max_length: int) -> Lessons:
    """Render every conversation of `split` once."""
    lessons = Lessons()
    for messages in rows_of(instructions, split).column("messages").to_pylist():
        whole = chat.render(messages)
        cut = Rendered(whole.ids[:max_length], whole.trained[:max_length])
        if not any(cut.trained[1:]):
            lessons.dropped_empty += 1
            continue
        lessons.truncated += len(cut.ids) < len(whole.ids)
        lessons.kept.append(cut)
        lessons.conversations.append(messages)
    return lessons
