"""What a model gained and lost, question by question: exact, and against another implementation."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from containers.mcnemar import mcnemar
from infra.report.changes import changes_of
from infra.report.shape import ScoreLine


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 5), (12, 1), (3, 17), (40, 22)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    wanted = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(wanted)


def items(file: Path, right: list[bool], measure: str = "accuracy") -> Path:
    rows = [
        {"set": "problems", "task": "sum", "way": "plain", "prompt": f"q{i}", "expected": None, "correct": mark,
         "counts_in": [measure]} for i, mark in enumerate(right)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def score(model: str, measure: str, value: float, spread: float = 0.1) -> ScoreLine:
    return ScoreLine(model=model, measure=measure, value=value, low=value - spread, high=value + spread, n=20)


def test_a_share_is_compared_question_by_question(tmp_path: Path) -> None:
    before, after = [False] * 12 + [True] * 8, [True] * 10 + [False] * 3 + [True] * 7
    answers = {"chat": items(tmp_path / "a", before), "ppo": items(tmp_path / "b", after)}
    line = next(changes_of([score("chat", "accuracy", 0.4), score("ppo", "accuracy", 0.85)], answers))
    assert (line.gained, line.lost, line.verdict) == (10, 1, "better")
    assert line.p == pytest.approx(binomtest(1, 11).pvalue)


def test_less_refusal_in_vain_is_better_and_more_loss_is_worse(tmp_path: Path) -> None:
    wrong, right = [False] * 9 + [True], [True] * 10
    answers = {
        "chat": items(tmp_path / "a", wrong, "over_refusal_rate"),
        "dpo": items(tmp_path / "b", right, "over_refusal_rate"),
    }
    scores = [
        score("chat", "over_refusal_rate", 0.9),
        score("chat", "answer_loss", 1.0),
        score("chat", "perplexity", 9.0),
    ]
    scores += [
        score("dpo", "over_refusal_rate", 0.0),
        score("dpo", "answer_loss", 1.2),
        score("dpo", "perplexity", 9.05),
    ]
    verdicts = {line.measure: line.verdict for line in changes_of(scores, answers)}
    assert verdicts == {"over_refusal_rate": "better", "answer_loss": "worse", "perplexity": "same"}


def test_a_run_without_alignment_has_no_changes(tmp_path: Path) -> None:
    answers = {name: items(tmp_path / name, [True]) for name in ("base", "chat")}
    assert not list(changes_of([score("base", "accuracy", 0.1), score("chat", "accuracy", 0.9)], answers))
