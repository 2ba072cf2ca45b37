"""What a model is asked: rows of held-out sets in each way of asking, and the fixed prompts."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from containers.contract import Dataset, Split
from containers.evaluate.contract import EvaluateConfig, EvaluateInputs, Way
from containers.formats import ChatFormat, Message, rows_of

Row = dict[str, Any]
NEXT = "\n\nQuestion:"
"""Where a completion that follows solved examples begins a question of its own: its answer ends before that."""


@dataclass(frozen=True)
class Question:
    """One prompt and what is known about its answer."""

    set: str
    """instructions, problems or prompts."""
    way: Way
    task: str
    prompt: str
    """The last user message as it stands in the set."""
    ids: list[int]
    """The prompt as the model reads it."""
    expected: str | None = None


def held_out(dataset: Dataset) -> Split:
    """Return the split to measure on: test, or validation where there is no test."""
    return "test" if dataset.rows.get("test") else "validation"


def sampled(dataset: Dataset, split: Split, count: int, seed: int) -> list[Row]:
    """Return up to `count` rows of a split in their own order, drawn by `seed`."""
    table = rows_of(dataset, split)
    if len(table) > count:
        table = table.take(sorted(random.Random(seed).sample(range(len(table)), count)))
    rows: list[Row] = table.to_pylist()
    return rows


def questions_of(config: EvaluateConfig, inputs: EvaluateInputs, chat: ChatFormat) -> Iterator[Question]:
    """Yield everything to ask: instructions plainly, problems in every way, then the fixed prompts."""
    if inputs.instructions:
        for row in sampled(inputs.instructions, held_out(inputs.instructions), config.max_items, config.seed):
            yield asked("instructions", row, until_answer(row["messages"]), chat)
    if inputs.problems:
        rows = sampled(inputs.problems, held_out(inputs.problems), config.max_items, config.seed)
        examples = Examples(config, inputs)
        for way in config.ways:
            for row in rows:
                turns = until_answer(row["messages"])
                if way == "few_shot":
                    ids = chat.encode(examples.before(row) + block_of(turns, ""))
                    yield Question("problems", way, row["task"] or "", turns[-1]["content"], ids, row["answer"])
                elif way == "step_by_step":
                    turns = [*turns[:-1], {**turns[-1], "content": f"{turns[-1]['content']}\n{config.step_prompt}"}]
                    yield asked("problems", row, turns, chat, way)
                else:
                    yield asked("problems", row, turns, chat)
    for prompt in config.prompts:
        yield asked("prompts", {}, [{"role": "user", "content": prompt}], chat)


def asked(name: str, row: Row, turns: Sequence[Message], chat: ChatFormat, way: Way = "plain") -> Question:
    """Return a question put as a chat."""
    ids = chat.render(turns, open_turn=True).ids
    return Question(name, way, row.get("task") or "", turns[-1]["content"], ids, row.get("answer"))


def until_answer(messages: Sequence[Message]) -> list[Message]:
    """Return the turns before the last answer of the assistant (all of them where the user spoke last)."""
    last = len(messages) - 1
    return list(messages[:last] if messages[last]["role"] == "assistant" else messages)


class Examples:
    """Solved problems from training rows, worked answers preferred to bare ones."""

    def __init__(self, config: EvaluateConfig, inputs: EvaluateInputs) -> None:
        """Draw examples of each task from the train splits of instructions and problems."""
        self.shots = config.shots
        self.by_task: dict[str, list[str]] = {}
        self.others: list[str] = []
        for dataset in (inputs.instructions, inputs.problems):
            for row in sampled(dataset, "train", 1000, config.seed) if dataset and "few_shot" in config.ways else ():
                if row["answer"] is not None:
                    turns = until_answer(row["messages"])
                    worked = row["messages"][-1]["content"] if len(turns) < len(row["messages"]) else row["answer"]
                    self.by_task.setdefault(row["task"] or "", []).append(block_of(turns, " " + worked))
        self.others = [block for blocks in zip(*self.by_task.values(), strict=False) for block in blocks]

    def before(self, row: Row) -> str:
        """Return the text of examples that stands before a problem; empty where there are none."""
        known = self.by_task.get(row["task"] or "") or self.others
        return "".join(f"{block}\n\n" for block in known[: self.shots])


def block_of(turns: Sequence[Message], answer: str) -> str:
    """Return a question and its answer as plain text."""
    return f"Question: {turns[-1]['content']}\nAnswer:{answer}"
