"""Problems as they are asked: the turns up to the question, the instruction below it, and what is right."""

from dataclasses import dataclass, field
from typing import Any

from containers.answers import is_right
from containers.contract import Dataset, Split, StageError
from containers.formats import ChatFormat, rows_of
from containers.generation import Job, answer_all
from containers.grpo.config import GRPOConfig
from containers.out import Out
from containers.prompts import turns_of

Row = dict[str, Any]
BATCH, SHOWN = 128, 8


def problems_in(dataset: Dataset, split: Split, config: GRPOConfig, chat: ChatFormat, context: int) -> list[Row]:
    """Return the problems of a split as rows of `prompt` (messages), its `ids`, `answer` and `task`.

    Left out: rows without an answer, and those whose prompt leaves no room for `max_new_tokens` in the context.
    """
    rows = []
    for row in rows_of(dataset, split).to_pylist():
        turns = turns_of(row)
        if not turns or row["answer"] is None:
            continue
        if config.instruction:
            turns = [*turns[:-1], {**turns[-1], "content": f"{turns[-1]['content']}\n{config.instruction}"}]
        ids = chat.render(turns, open_turn=True).ids
        if len(ids) + config.max_new_tokens <= context:
            rows.append({"prompt": turns, "ids": ids, "answer": row["answer"], "task": row["task"] or ""})
    return rows


def chosen(rows: list[Row], tasks: tuple[str, ...]) -> list[Row]:
    """Return the rows of these tasks and of those below them; all where none is named."""
    return [row for row in rows if not tasks or any(f"{row['task']}.".startswith(f"{task}.") for task in tasks)]


def to_learn(dataset: Dataset, config: GRPOConfig, chat: ChatFormat, context: int, out: Out) -> list[Row]:
    """Return the training rows; raises StageError where there are none."""
    asked = dataset.rows.get("train", 0)
    fitting = problems_in(dataset, "train", config, chat, context)
    if len(fitting) < asked:
        out.say(
            f"{asked - len(fitting)} of {asked} problems are left out: no answer to check, or no room for "
            f"max_new_tokens {config.max_new_tokens} in the context of {context} tokens",
            level="warning",
        )
    rows = chosen(fitting, config.tasks)
    if len(rows) < config.prompts_per_rollout:
        known = ", ".join(sorted({row["task"] for row in fitting if row["task"]})) or "none"
        raise StageError(
            f"{len(rows)} problems to train on, fewer than prompts_per_rollout {config.prompts_per_rollout}: name "
            f"other `tasks` (there are: {known}), or shorten max_new_tokens"
        )
    return rows


def spaced(rows: list[Row], count: int) -> list[Row]:
    """Return up to `count` rows, evenly spaced: a data set may hold its kinds one after the other."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


@dataclass
class HeldOut:
    """Validation problems, answered greedily; never trained on."""

    rows: list[Row]
    config: GRPOConfig
    chat: ChatFormat
    samples: list[Row] = field(default_factory=list)
    """The first problems with the answers of the last measurement."""

    @classmethod
    def of(cls, dataset: Dataset, config: GRPOConfig, chat: ChatFormat, context: int) -> "HeldOut":
        """Take `validation_rows` of the tasks that are trained on, and as many of the others, evenly spaced."""
        rows = problems_in(dataset, "validation", config, chat, context)
        named = chosen(rows, config.tasks)
        others = [row for row in rows if row not in named]
        return cls(spaced(named, config.validation_rows) + spaced(others, config.validation_rows), config, chat)

    def measure(self, model: Any) -> dict[str, float]:
        """Return exact match on the tasks that are trained on, and on the others; nothing where no row is held out."""
        stops = frozenset(self.chat.stop_ids)
        limit = self.config.max_new_tokens
        jobs = [Job(row["ids"], limit, lambda made: made[-1] in stops) for row in self.rows]
        answers = answer_all(model, jobs, BATCH, lambda _: None)
        replies = [self.chat.decode(ids) for ids in answers]
        right = [is_right(reply, row["answer"]) for reply, row in zip(replies, self.rows, strict=True)]
        self.samples = [
            {"prompt": row["prompt"][-1]["content"], "answer": reply, "expected": row["answer"], "right": mark}
            for row, reply, mark in list(zip(self.rows, replies, right, strict=True))[:SHOWN]
        ]
        count = len(chosen(self.rows, self.config.tasks))
        parts = {"exact_match": right[:count], "exact_match_other_tasks": right[count:]}
        return {name: sum(part) / len(part) for name, part in parts.items() if part}
