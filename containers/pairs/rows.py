"""Preference rows -> pairs of token ids with one prompt; rows that cannot be compared, with reasons. No torch."""

from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from containers.alignment import AlignmentConfig
from containers.contract import Dataset, Split, StageError, aside
from containers.formats import ChatFormat, Message, Rendered, rows_of

SAMPLES = 5
"""Row ids that the card names per reason."""


class PairsConfig(AlignmentConfig):
    """What reward and dpo share: how pairs are dealt out to steps."""

    epochs: int = Field(1, ge=1)
    """Times that every pair is seen; preferences are few and learnt by heart after two or three."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps in all, whatever `epochs` says (pairs are repeated or left out)."""
    batch_size: int = Field(32, ge=1)
    """Pairs per optimizer step."""
    micro_batch_size: int = Field(8, ge=1)
    """Pairs of two answers of `max_length` tokens in memory at once; as many shorter ones as fit those tokens."""
    max_length: int = Field(1024, ge=8)
    """Tokens of prompt and answer. A longer pair is left out and counted: people judged the whole of it, and what they
    preferred may stand in the part that a cut would take away."""
    checkpoint_every: int | Literal["epoch"] = aside("epoch")
    """Optimizer steps between two checkpoints, or one per epoch; a killed run goes on from the newest."""
    validation_rows: int = aside(256, ge=0)
    """Held-out pairs that are measured after each epoch."""

    @model_validator(mode="after")
    def check_counts(self) -> Self:
        """Refuse numbers that contradict each other."""
        if isinstance(self.checkpoint_every, int) and self.checkpoint_every < 1:
            raise ValueError("checkpoint_every counts optimizer steps: 1 or more, or 'epoch'")
        if self.micro_batch_size > self.batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} is more than batch_size {self.batch_size}")
        return self


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, each up to its end-of-turn token; `trained` marks what the assistant said."""

    number: int
    """Place of the row in its split."""
    id: str
    task: str
    prompt: list[int]
    """Everything before the answers: all turns, and the header that opens the answer."""
    chosen: Rendered
    rejected: Rendered

    @property
    def answers(self) -> tuple[Rendered, Rendered]:
        """The better answer, then the worse one."""
        return self.chosen, self.rejected

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt) + max(len(answer.ids) for answer in self.answers)

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and both answers: what a packed row holds."""
        return len(self.prompt) + sum(len(answer.ids) for answer in self.answers)


@dataclass
class Pairs:
    """What a stage sees of one split, and what it does not."""

    kept: list[Pair] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> ids of the rows that were left out."""

    def card(self) -> dict[str, Any]:
        """Return counts and sample row ids for people."""
        reasons = {why: {"rows": len(ids), "samples": ids[:SAMPLES]} for why, ids in sorted(self.refused.items())}
        return {"kept": len(self.kept), "refused": reasons}


class Refused(Exception):
    """A row that no comparison can be learnt from; the message is the reason."""


def read_pairs(preferences: Dataset, split: Split, chat: ChatFormat, max_length: int) -> Pairs:
    """Render every row of `split` once; what cannot be compared is left out with its reason."""
    pairs = Pairs()
    for number, row in enumerate(rows_of(preferences, split).to_pylist()):
        row["id"] = row["id"] or f"{split}/{number}"
        try:
            pairs.kept.append(pair_of(number, row, chat, max_length))
        except Refused as why:
            pairs.refused.setdefault(str(why), []).append(row["id"])
    return pairs


def training_pairs(preferences: Dataset, chat: ChatFormat, max_length: int) -> Pairs:
    """Return the pairs that are trained on; raises StageError where nothing is left."""
    pairs = read_pairs(preferences, "train", chat, max_length)
    if not pairs.kept:
        reasons = "; ".join(f"{len(ids)} x {why} ({ids[0]}, ...)" for why, ids in sorted(pairs.refused.items()))
        raise StageError(
            f"{preferences.path / 'train'} holds no pair that can be learnt from: {reasons or 'it is empty'}. "
            "Mend the rows, or raise max_length where pairs are too long"
        )
    return pairs


def held_out_pairs(preferences: Dataset, chat: ChatFormat, max_length: int) -> Pairs:
    """Return the pairs that final figures are measured on: the test split, or validation where there is none."""
    split: Split = "test" if preferences.rows.get("test") else "validation"
    return read_pairs(preferences, split, chat, max_length)


def pair_of(number: int, row: dict[str, Any], chat: ChatFormat, max_length: int) -> Pair:
    """Return one row's pair; raises Refused."""
    for side in ("chosen", "rejected"):
        if not row[side] or row[side][-1]["role"] != "assistant" or not row[side][-1]["content"].strip():
            raise Refused(f"the {side} answer is empty")
    (prompt, chosen), (other, rejected) = (
        split_answer(row["prompt"], row[side], chat) for side in ("chosen", "rejected")
    )
    if chosen.ids == rejected.ids:
        raise Refused("chosen equals rejected")
    if prompt != other:
        raise Refused("the template renders the prompt in another way for each answer")
    pair = Pair(number, row["id"], row["task"] or "", prompt, chosen, rejected)
    if pair.longest > max_length:
        raise Refused(f"longer than max_length ({max_length} tokens)")
    return pair


def split_answer(prompt: list[Message], answer: list[Message], chat: ChatFormat) -> tuple[list[int], Rendered]:
    """Return (ids of the prompt, the answer from its first trained token to its last)."""
    whole = chat.render([*prompt, *answer])
    spoken = [place for place, trained in enumerate(whole.trained) if trained]
    first = spoken[sum(chat.render(prompt).trained)]
    last = spoken[-1] + 1
    return whole.ids[:first], Rendered(whole.ids[first:last], whole.trained[first:last])
