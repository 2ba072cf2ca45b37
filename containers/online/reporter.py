"""What happens around the steps of an online trainer: curves, held-out figures, the health guard, going on."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from containers.checkpoints import newest
from containers.online.config import OnlineConfig
from containers.online.trainer import GUARD
from containers.out import Out
from containers.reporting import Reporter

CURVES = {
    "reward": "reward",
    "reward_std": "reward_spread",
    "kl": "kl_per_token",
    "entropy": "entropy",
    "frac_reward_zero_std": "zero_spread",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "truncated",
    "clip_ratio/region_mean": "clipped_share",
    "log_prob_gap": "log_prob_gap",
}
"""What a trainer of TRL logs -> what it is called here (and by the health guard)."""
Measure = Callable[[Any], dict[str, float]]


class OnlineReporter(Reporter):
    """Thins the curves, measures held-out prompts, and has the health guard look after each committed checkpoint."""

    def __init__(
        self, out: Out, config: OnlineConfig, measure: Measure, held_out: str, parts: Mapping[str, str]
    ) -> None:
        """`measure` takes the model; of its figures the guard watches `held_out`. `parts`: more curves."""
        super().__init__(out, {**CURVES, **parts}, shown=("reward", "zero_spread"))
        self.config, self.measure, self.held_out = config, measure, held_out
        self.recent: list[dict[str, float]] = []
        self.trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """Take the place of the trainer's own printing."""
        super().attach(trainer)
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say how far training is; measure every `validate_every` steps and at the end."""
        super().on_step_end(args, state, control)
        if state.global_step % self.config.validate_every == 0 or state.global_step == state.max_steps:
            self.look(state.global_step)

    def look(self, step: int) -> dict[str, float]:
        """Measure the held-out prompts and return the figures, none where there are none."""
        model = self.trainer.policy.model
        training = model.training
        model.eval()
        with self.trainer.policy.autocast():
            figures = self.measure(self.trainer.speaker())
        model.train(training)
        if figures:
            self.out.metrics(step, **figures)
            self.out.record(**figures)
        if self.held_out in figures:
            self.trainer.guard.watch(step, {"held_out": figures[self.held_out]})
        self.began = time.monotonic()
        return figures

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the guard every step; append the mean of every `logging_steps`."""
        if not logs or "loss" not in logs:
            return
        point = {ours: float(logs[name]) for name, ours in self.curves.items() if logs.get(name) is not None}
        if "kl_per_token" in point and "length" in point:
            point["kl"] = point["kl_per_token"] * point["length"]
        samples = self.trainer.samples()
        watched = {**point, "zero_spread": self.trainer.idle_share(samples)}
        self.trainer.guard.watch(state.global_step, watched, samples)
        self.recent.append(point)
        if state.global_step % self.config.logging_steps == 0 or state.global_step in (1, state.max_steps):
            names = {name for each in self.recent for name in each}
            values = {name: [each[name] for each in self.recent if name in each] for name in sorted(names)}
            self.figures = {name: sum(found) / len(found) for name, found in values.items()}
            self.out.metrics(state.global_step, **self.figures)
            self.out.record(**self.figures)
            self.recent = []

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Commit the checkpoint, then raise Unhealthy where the guard finds a bound passed."""
        super().on_save(args, state, control)
        self.trainer.guard.check(state.global_step)


def train(trainer: Any, reporter: OnlineReporter) -> dict[str, float]:
    """Train to the end, from the newest committed checkpoint if there is one; return the held-out figures before."""
    reporter.attach(trainer)
    before = reporter.look(0)
    found = newest(reporter.out.work)
    if found:
        reporter.out.say(f"going on from step {found[0]} of {trainer.args.max_steps}")
        trainer.guard.load_state_dict(json.loads((found[1] / GUARD).read_text(encoding="utf-8")))
    trainer.train(resume_from_checkpoint=str(found[1]) if found else None)
    return before
