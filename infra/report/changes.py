"""What each model of a run gained and lost against the one that alignment started from, asked the same questions.

A share (right, refused, courteous) is compared question by question: McNemar's exact test on those that changed sides
(McNemar 1947). Any other measure is worse, or better, when it leaves the 95% interval of the model before.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from containers.contract import Scores
from containers.mcnemar import SIGNIFICANT, mcnemar
from infra.report.shape import ChangeLine, ScoreLine

BASELINE = "chat"
"""The model that alignment starts from."""
LESS_IS_BETTER = ("bits_per_byte", "perplexity", "answer_loss", "over_refusal_rate")
Key = tuple[str, ...]
Marks = Mapping[str, Mapping[Key, bool]]
"""Measure -> question -> whether its answer is right (a refusal in vain counts as wrong)."""


def changes_of(scores: Sequence[ScoreLine], answers: Mapping[str, Path]) -> Iterator[ChangeLine]:
    """Yield a line per measure of every model after the baseline; `answers`: model -> its items.parquet."""
    models = list(dict.fromkeys(score.model for score in scores))
    if BASELINE not in models:
        return
    before = {score.measure: score for score in scores if score.model == BASELINE}
    marks = marks_in(answers[BASELINE])
    for model in models[models.index(BASELINE) + 1 :]:
        now = marks_in(answers[model])
        for score in scores:
            if score.model == model and score.measure in before:
                yield change(before[score.measure], score, marks, now)


def between(before: Scores, after: Scores) -> Iterator[ChangeLine]:
    """Yield a line per measure that two models share, asked the same questions."""
    first = {line.measure: line for line in lines_in(before)}
    marks, now = (marks_in(scores.path / "items.parquet") for scores in (before, after))
    for line in lines_in(after):
        if line.measure in first:
            yield change(first[line.measure], line, marks, now)


def lines_in(scores: Scores) -> list[ScoreLine]:
    """Return a model's measures."""
    found = json.loads((scores.path / "scores.json").read_text(encoding="utf-8"))
    return [ScoreLine(model=scores.model, **line) for line in found["measures"]]


def change(before: ScoreLine, after: ScoreLine, marks: Marks, now: Marks) -> ChangeLine:
    """Return what became of one measure."""
    measure = after.measure
    gained, lost = sides(marks.get(measure, {}), now.get(measure, {}))
    p = mcnemar(gained, lost) if measure in marks and measure in now else None
    better = (after.value > before.value) != (measure in LESS_IS_BETTER)
    counts = p < SIGNIFICANT if p is not None else not before.low <= after.value <= before.high
    return ChangeLine(
        model=after.model, against=before.model, measure=measure, before=before.value, after=after.value,
        gained=gained, lost=lost, p=p, verdict=("better" if better else "worse") if counts else "same",
    )  # fmt: skip


def sides(before: Mapping[Key, bool], after: Mapping[Key, bool]) -> tuple[int, int]:
    """Return how many questions were wrong and are right now, and how many the other way."""
    both = before.keys() & after.keys()
    gained = sum(after[key] and not before[key] for key in both)
    return gained, sum(before[key] and not after[key] for key in both)


def marks_in(file: Path) -> Marks:
    """Return the marks of one model's answers; a question asked twice in a measure is told apart by its place."""
    import pyarrow.parquet as pq

    found: dict[str, dict[Key, bool]] = {}
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    for row in rows:
        for measure in row["counts_in"]:
            marks = found.setdefault(measure, {})
            key = (row["set"], row["task"], row["way"], row["prompt"], row["expected"] or "")
            marks[key if key not in marks else (*key, str(len(marks)))] = row["correct"]
    return found
