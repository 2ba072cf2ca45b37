"""What `tiny` promises, proven on the recipe itself: it learns its worlds, with all weights or through an adapter."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.flows.line import Line

pytestmark = pytest.mark.slow
THIN = "accuracy/shop.two_step"
"""The kind that lessons show thinly: reinforcement learning is to win there."""
ADAPTER = ("sft.epochs=2", "sft.r=32", "sft.alpha=64", "sft.dropout=0")
"""For a model of 0.8M weights; a large one wants a smaller rank, and one pass."""
RLOO = (
    "align.2={rlhf: {algorithm: rloo, learning_rate: 2.0e-4, normalize_advantages: true, steps: 40, "
    "prompts_per_rollout: 16, max_prompt_tokens: 120, max_new_tokens: 112, precision: fp32}}"
)
"""In ppo's place."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    line = Line(tmp_path_factory.mktemp("tiny"), "tiny")
    first = line.run()
    assert first.returncode == 0, first.stdout + first.stderr
    yield line
    line.slipway("stop")


@pytest.fixture(scope="module")
def full(tiny: Line) -> dict[str, Any]:
    """The report of the recipe as it stands, before any other run."""
    return tiny.report()


def scores_of(report: dict[str, Any], model: str = "chat") -> dict[str, float]:
    return {row["measure"]: row["value"] for row in report["scores"] if row["model"] == model}


def accuracy_of(report: dict[str, Any]) -> float:
    """Return the share of right answers over all problems of kinds that lessons show well."""
    kinds = [row for row in report["scores"] if row["model"] == "chat" and row["measure"].startswith("accuracy/")]
    taught = [row for row in kinds if row["measure"] != THIN]
    return sum(row["value"] * row["n"] for row in taught) / sum(row["n"] for row in taught)


def test_it_answers_what_it_was_taught_and_leaves_two_steps_to_win(full: dict[str, Any]) -> None:
    found = scores_of(full)
    assert accuracy_of(full) >= 0.9
    weak = {kind: value for kind, value in found.items() if kind.startswith("accuracy/") and value < 0.75}
    assert weak.keys() <= {THIN}, weak  # a kind has some twenty questions on a handful of numbers: one miss costs much
    assert 0.3 <= found[THIN] <= 0.7
    assert found["refusal_rate"] > found["over_refusal_rate"]


def test_pretraining_lowers_bits_per_byte(full: dict[str, Any]) -> None:
    curve = next(stage["metrics"] for stage in full["stages"] if stage["name"] == "pretrain")
    assert curve["bits_per_byte"] < 0.25 * curve["first_bits_per_byte"]


def test_the_smaller_formats_say_the_same(full: dict[str, Any]) -> None:
    rows = {row["format"]: row["delta"] for row in full["quantization"]}
    assert abs(rows["q8_0"]) < 0.005 and rows["q4_0"] < 0.10


def test_alignment_raises_what_people_prefer_and_what_training_never_sees(full: dict[str, Any]) -> None:
    metrics = {stage["name"]: stage["metrics"] for stage in full["stages"]}
    chat, ppo, dpo = (scores_of(full, model) for model in ("chat", "ppo", "dpo"))
    assert metrics["reward"]["pair_accuracy"] >= 0.9
    assert metrics["rlhf"]["kl"] <= 10
    assert ppo["courtesy_rate"] >= chat["courtesy_rate"] + 0.2
    assert dpo["courtesy_rate"] >= chat["courtesy_rate"] + 0.15
    assert dpo["refusal_rate"] >= chat["refusal_rate"] and dpo["over_refusal_rate"] <= chat["over_refusal_rate"]


def test_leaving_one_out_raises_what_people_prefer_too(tiny: Line, full: dict[str, Any]) -> None:
    done = tiny.run(RLOO)
    assert done.returncode == 0, done.stdout + done.stderr
    report = tiny.report()
    chat, rloo = (scores_of(report, model) for model in ("chat", "rloo"))
    assert {stage["name"]: stage["metrics"] for stage in report["stages"]}["rlhf"]["kl"] <= 10
    assert rloo["courtesy_rate"] >= chat["courtesy_rate"] + 0.2


def test_trying_solves_the_problems_of_two_steps(full: dict[str, Any]) -> None:
    line = next(row for row in full["changes"] if (row["model"], row["measure"]) == ("grpo", THIN))
    assert line["after"] >= line["before"] + 0.1
    assert line["gained"] > line["lost"] and line["p"] < 0.01


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_comes_within_five_points_of_all_weights(tiny: Line, full: dict[str, Any], method: str) -> None:
    done = tiny.run(f"sft.method={method}", *ADAPTER, "align=[]")
    assert done.returncode == 0, done.stdout + done.stderr
    report = tiny.report()
    assert {s["name"]: s["status"] for s in report["stages"]}["pretrain"] == "cached"
    assert accuracy_of(report) > accuracy_of(full) - 0.05
