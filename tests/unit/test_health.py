"""The health guard: quiet on a healthy run; each fault is stopped by its own bound, with evidence; resumes alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from containers.contract import Unhealthy
from containers.health import Guard, HealthConfig, Sample
from containers.out import Out

BOUNDS = HealthConfig(window=4, kl=20, entropy=0.2, length=2, truncated=0.5, zero_spread=0.9, held_out_fall=0.1)
HEALTHY = {
    "reward": 0.0, "kl": 2.0, "entropy": 1.5, "length": 40.0, "truncated": 0.02, "zero_spread": 0.1,
    "log_prob_gap": 0.003, "held_out": 0.6,
}  # fmt: skip
FAULTS: dict[str, Any] = {
    "zero_spread": lambda step: {"zero_spread": 1.0},
    "kl": lambda step: {"kl": 3.0 * step},
    "entropy": lambda step: {"entropy": 1.5 * 0.8**step},
    "length": lambda step: {"length": 40 * 1.1**step},
    "truncated": lambda step: {"truncated": min(1.0, step / 10)},
    "log_prob_gap": lambda step: {"log_prob_gap": 0.3},
    "held_out_fall": lambda step: {"reward": 0.1 * step, "held_out": 0.8 - 0.02 * step},
}


def guard_after(folder: Path, fault: Any, steps: int = 16, config: HealthConfig = BOUNDS) -> Guard:
    guard = Guard(config, Out(folder))
    for step in range(1, steps + 1):
        samples = [Sample(f"<b>question {n}</b>", f"answer {n} of step {step}", float(n)) for n in range(12)]
        guard.watch(step, HEALTHY | fault(step), samples)
    return guard


def test_a_healthy_run_goes_on(tmp_path: Path) -> None:
    guard = guard_after(tmp_path, lambda step: {"reward": 0.1 * step, "held_out": 0.6 + 0.01 * (-1) ** step})
    guard.check(16)
    assert not list((tmp_path / "outputs").rglob("health.*"))


@pytest.mark.parametrize("bound", FAULTS)
def test_a_fault_is_stopped_by_its_bound_with_evidence(tmp_path: Path, bound: str) -> None:
    guard = guard_after(tmp_path, FAULTS[bound])
    with pytest.raises(Unhealthy) as stopped:
        guard.check(16)
    assert f"health.{bound} {getattr(BOUNDS, bound):g}" in str(stopped.value)
    assert "card/health.html" in str(stopped.value) and "\n" not in str(stopped.value)
    record = json.loads((tmp_path / "outputs/card/health.json").read_text())
    assert record["broken"] == [bound]
    found = next(f for f in record["findings"] if f["bound"] == bound)
    assert f"{found['value']:.3g}"[:3] in str(stopped.value)
    assert [s["reward"] for s in record["worst"]] == sorted(float(n) for n in range(8))
    page = (tmp_path / "outputs/card/health.html").read_text()
    assert page.count("<polyline") == len(HEALTHY) and "class=bound" in page
    assert "&lt;b&gt;question 0" in page and "http" not in page and str(tmp_path) not in page


@pytest.mark.parametrize("bound", FAULTS)
def test_a_bound_of_null_is_off(tmp_path: Path, bound: str) -> None:
    guard_after(tmp_path, FAULTS[bound], config=BOUNDS.revise(**{bound: None})).check(16)


@pytest.mark.parametrize("bound", FAULTS)
def test_nothing_is_judged_before_the_windows_are_full(tmp_path: Path, bound: str) -> None:
    guard_after(tmp_path, FAULTS[bound], steps=2).check(2)


def test_answers_that_shrink_are_drift_too(tmp_path: Path) -> None:
    with pytest.raises(Unhealthy, match=r"health\.length"):
        guard_after(tmp_path, lambda step: {"length": 40 * 0.85**step}).check(16)


def test_a_held_out_measure_may_fall_with_the_reward(tmp_path: Path) -> None:
    guard_after(tmp_path, lambda step: {"reward": -0.1 * step, "held_out": 0.8 - 0.02 * step}).check(16)


def test_a_rise_within_chance_is_none(tmp_path: Path) -> None:
    guard_after(tmp_path, lambda step: {"reward": (-1) ** step + 0.01 * step, "held_out": 0.8 - 0.02 * step}).check(16)


def test_a_resumed_guard_judges_as_one_that_was_never_stopped(tmp_path: Path) -> None:
    whole = guard_after(tmp_path / "whole", FAULTS["entropy"])
    half = guard_after(tmp_path / "half", FAULTS["entropy"], steps=8)
    resumed = Guard(BOUNDS, Out(tmp_path / "resumed"))
    resumed.load_state_dict(json.loads(json.dumps(half.state_dict())))
    for step in range(9, 17):
        samples = [Sample(f"<b>question {n}</b>", f"answer {n} of step {step}", float(n)) for n in range(12)]
        resumed.watch(step, HEALTHY | FAULTS["entropy"](step), samples)
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.findings() == whole.findings()
