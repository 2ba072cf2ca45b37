"""The health guard of training by reward: a run that has gone wrong stops early, with the evidence.

A trainer calls `watch` at every step and `check` right after it has committed a checkpoint. Past a bound, `check`
writes `card/health.html` (a plot of every watched figure with its bound, the worst samples) and `card/health.json`, and
raises `Unhealthy`: nothing is lost, and the budget is not burnt on a policy that games its reward (Gao et al. 2022,
arXiv:2210.10760). Pydantic alone is imported, so that contracts can hold a `HealthConfig`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from pydantic import Field

from containers.contract import Config, Unhealthy
from containers.health_page import page_of
from containers.out import Out

SHOWN = 8
"""Worst samples that are kept as evidence."""
NOISE = 1e-6
"""A rise or a spread below this is none."""


class HealthConfig(Config):
    """How far a run may go wrong before it is stopped; a bound of null is off.

    Figures are means over `window` steps. Drift is measured from the first window.
    """

    window: int = Field(8, ge=1)
    """Steps behind each figure: a bound is held against their mean, never against one step."""
    zero_spread: float | None = Field(0.9, gt=0, le=1)
    """Largest share of groups whose answers all got the same reward: nothing is learnt from them."""
    kl: float | None = Field(50.0, gt=0)
    """Largest KL(policy || reference), nats per answer: beyond it the answers are of another model."""
    entropy: float | None = Field(0.1, gt=0, lt=1)
    """Least entropy of the next-token distribution, as a share of the first window's: below it nothing is explored."""
    length: float | None = Field(3.0, gt=1)
    """Largest drift of the answers' length: this many times longer or shorter than in the first window."""
    truncated: float | None = Field(0.5, gt=0, le=1)
    """Largest share of answers that are cut off before they end."""
    log_prob_gap: float | None = Field(0.1, gt=0)
    """Largest mean gap (nats per token) between the log-probabilities of rollout and trainer, which are one model."""
    held_out_fall: float | None = Field(0.1, gt=0)
    """How far the held-out measure (in its own unit) may fall below its best while the reward rises beyond chance."""


@dataclass(frozen=True)
class Sample:
    """One answer of the policy."""

    prompt: str
    answer: str
    reward: float


@dataclass(frozen=True)
class Finding:
    """A bound and what was seen of it."""

    bound: str
    """Name of the field in HealthConfig."""
    figure: str
    """Name of the curve that it watches."""
    value: float
    limit: float
    says: str
    """What the numbers mean, in words."""
    lines: tuple[float, ...]
    """Where the bound lies on the curve."""

    @property
    def broken(self) -> bool:
        """Whether the value lies on the wrong side of the limit."""
        return self.value < self.limit if self.bound == "entropy" else self.value > self.limit


REMEDIES = {
    "zero_spread": "the reward tells answers apart nowhere: check the reward (and draw more, or warmer, answers)",
    "kl": "raise the KL coefficient or lower the learning rate",
    "entropy": "lower the learning rate, take fewer epochs per batch, or raise the KL coefficient",
    "length": "the reward pays for length: look at the samples, mend the reward, or raise the KL coefficient",
    "truncated": "the answers do not end: raise max_new_tokens, or check that the chat template ends a turn with the "
    "token that the policy has learnt to end it with",
    "log_prob_gap": "rollouts come from another distribution than is trained: check precision, temperature and padding",
    "held_out_fall": "the reward is gamed: raise the KL coefficient, stop earlier, or mend the reward",
}  # fmt: skip


class Guard:
    """Watches the figures of a run; its state goes into every checkpoint, so that a resumed run judges alike."""

    def __init__(self, config: HealthConfig, out: Out) -> None:
        """Take the bounds, and where the evidence goes."""
        self.config, self.out = config, out
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.worst: list[Sample] = []

    def watch(self, step: int, figures: Mapping[str, float], samples: Sequence[Sample] = ()) -> None:
        """Take a step's figures (named as the curves are) and some of its answers, of which the worst are kept."""
        for name, value in figures.items():
            self.curves.setdefault(name, []).append((step, float(value)))
        if samples:
            self.worst = sorted(samples, key=lambda sample: sample.reward)[:SHOWN]

    def check(self, step: int) -> None:
        """Raise Unhealthy, the evidence written, when a bound is passed. Call it after a committed checkpoint."""
        findings = self.findings()
        broken = [finding for finding in findings if finding.broken]
        if not broken:
            return
        record = {
            "step": step,
            "broken": [finding.bound for finding in broken],
            "findings": [asdict(finding) for finding in findings],
            "curves": self.curves,
            "worst": [asdict(sample) for sample in self.worst],
        }
        text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
        (self.out.card / "health.json").write_text(text + "\n", encoding="utf-8")
        (self.out.card / "health.html").write_text(page_of(record), encoding="utf-8")
        raise Unhealthy(
            f"stopped after step {step}, its checkpoint is kept. "
            + ". ".join(f"health.{b.bound} {b.limit:g}: {b.says}; {REMEDIES[b.bound]}" for b in broken)
            + ". Evidence: card/health.html, card/health.json"
        )

    def findings(self) -> list[Finding]:
        """Return what can be said of each bound that is on; nothing before the first window is full."""
        found = [self.level(name) for name in ("zero_spread", "kl", "truncated", "log_prob_gap")]
        found += [self.entropy_left(), self.length_drift(), self.fall()]
        return [finding for finding in found if finding is not None]

    def level(self, name: str) -> Finding | None:
        """Hold a figure's last window against its bound."""
        limit, values = getattr(self.config, name), self.values(name)
        if limit is None or len(values) < self.config.window:
            return None
        value = mean(values[-self.config.window :])
        return Finding(name, name, value, limit, f"{name.replace('_', ' ')} is {value:.4g}", (limit,))

    def entropy_left(self) -> Finding | None:
        """Hold the last window's entropy against the first's."""
        limit, (first, last) = self.config.entropy, self.windows("entropy")
        if limit is None or first <= NOISE:
            return None
        share = last / first
        says = f"entropy fell from {first:.4g} to {last:.4g} nats per token, {share:.3g} of what it was"
        return Finding("entropy", "entropy", share, limit, says, (limit * first,))

    def length_drift(self) -> Finding | None:
        """Hold the last window's answer length against the first's, whichever way it went."""
        limit, (first, last) = self.config.length, self.windows("length")
        if limit is None or min(first, last) <= 0:
            return None
        drift = max(last / first, first / last)
        says = f"answers went from {first:.4g} to {last:.4g} tokens, {drift:.3g} times"
        return Finding("length", "length", drift, limit, says, (first * limit, first / limit))

    def fall(self) -> Finding | None:
        """Tell how far the held-out measure (mean of its last two) lies below its best, if the reward rose since."""
        limit, points = self.config.held_out_fall, self.curves.get("held_out", [])
        if limit is None or len(points) < 3:
            return None
        best_step, best = max(points[:-1], key=lambda point: point[1])
        now = mean([value for _, value in points[-2:]])
        rise = self.reward_at(points[-1][0]) - self.reward_at(best_step)
        fallen = max(best - now, 0.0) if rise > 2 * self.chance() else 0.0
        says = f"the held-out measure fell by {fallen:.4g} to {now:.4g} while the reward rose by {rise:.4g}"
        return Finding("held_out_fall", "held_out", fallen, limit, says, (best - limit,))

    def reward_at(self, step: int) -> float:
        """Return the mean reward of the window that ends at `step` (or of the first one)."""
        so_far = [value for at, value in self.curves.get("reward", []) if at <= step]
        return mean((so_far or self.values("reward"))[-self.config.window :])

    def chance(self) -> float:
        """Return the standard error of a rise of the reward between two windows, from how it jumps step by step."""
        values = self.values("reward")
        jumps = [(after - before) ** 2 for before, after in pairwise(values)]
        return math.sqrt(mean(jumps) / self.config.window) + NOISE

    def windows(self, name: str) -> tuple[float, float]:
        """Return a figure's mean over the first and over the last window; zeros until both are full."""
        values, size = self.values(name), self.config.window
        if len(values) < 2 * size:
            return 0.0, 0.0
        return mean(values[:size]), mean(values[-size:])

    def values(self, name: str) -> list[float]:
        """Return a curve without its steps."""
        return [value for _, value in self.curves.get(name, [])]

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint must hold, in plain values."""
        return {"curves": self.curves, "worst": [asdict(sample) for sample in self.worst]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict` (JSON may have turned its pairs into lists)."""
        self.curves = {name: [(int(at), value) for at, value in points] for name, points in state["curves"].items()}
        self.worst = [Sample(**sample) for sample in state["worst"]]


def mean(values: Sequence[float]) -> float:
    """Return the mean; zero of nothing."""
    return sum(values) / len(values) if values else 0.0
