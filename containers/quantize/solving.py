"""Problems with known answers, put to the parent and to every format: the same ones, greedily, marked alike."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from containers.answers import is_right
from containers.contract import Dataset
from containers.formats import ChatFormat, rows_of
from containers.generation import Job, answer_all
from containers.mcnemar import mcnemar
from containers.prompts import turns_of
from containers.quantize.config import QuantizeConfig


@dataclass(frozen=True)
class Problem:
    """A prompt as the model reads it, the longest answer in tokens, and what is right."""

    ids: list[int]
    limit: int
    expected: str


def problems_of(dataset: Dataset | None, chat: ChatFormat, context: int, config: QuantizeConfig) -> list[Problem]:
    """Return up to `max_problems` held-out problems that fit the context, drawn by `seed`; none without a template."""
    if dataset is None or not chat.template or not config.max_problems:
        return []
    split = "test" if dataset.rows.get("test") else "validation"
    rows = [row for row in rows_of(dataset, split).to_pylist() if row["answer"] is not None and turns_of(row)]
    if len(rows) > config.max_problems:
        rows = random.Random(config.seed).sample(rows, config.max_problems)
    asked = [(chat.render(turns_of(row), open_turn=True).ids, row["answer"]) for row in rows]
    return [
        Problem(ids, min(config.max_new_tokens, context - len(ids)), expected)
        for ids, expected in asked
        if len(ids) < context
    ]


def solve(model: Any, problems: Sequence[Problem], chat: ChatFormat) -> list[bool]:
    """Return which problems a model of transformers solves."""
    jobs = [Job(p.ids, p.limit, lambda made: made[-1] in chat.stop_ids) for p in problems]
    return marks(answer_all(model, jobs, len(jobs) or 1, lambda done: None), problems, chat)


def marks(answers: Sequence[list[int]], problems: Sequence[Problem], chat: ChatFormat) -> list[bool]:
    """Return which answers (token ids) are right."""
    pairs = zip(answers, problems, strict=True)
    return [is_right(chat.decode(ids).strip(), problem.expected) for ids, problem in pairs]


def compared(parent: Sequence[bool], own: Sequence[bool] | None) -> dict[str, float | None]:
    """Return `accuracy`, its change against the parent, and the p of that change (McNemar's); None where unmeasured."""
    if not parent or own is None:
        return {"accuracy": None, "accuracy_delta": None, "accuracy_p": None}
    gained = sum(after and not before for before, after in zip(parent, own, strict=True))
    lost = sum(before and not after for before, after in zip(parent, own, strict=True))
    return {
        "accuracy": share(own),
        "accuracy_delta": (gained - lost) / len(own),
        "accuracy_p": mcnemar(gained, lost),
    }


def share(solved: Sequence[bool] | None) -> float | None:
    """Return the share of problems that are solved, None where there are none."""
    return sum(solved) / len(solved) if solved else None
