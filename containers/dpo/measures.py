"""How far alignment went, on pairs that it never saw: does the policy prefer what people prefer, and at what price."""

from typing import Any

import numpy as np

from containers.dpo.reference import Reference, log_probs_of
from containers.out import Out
from containers.pairs.measures import accuracy, by_task, length_bias
from containers.pairs.rows import Pair
from containers.pairs.training import Course
from containers.policy import Policy


class HeldOut:
    """Held-out pairs, and what the reference thinks of them."""

    def __init__(self, policy: Policy, course: Course, pairs: list[Pair], name: str, out: Out) -> None:
        """Ask the reference, which the policy still is; `name` is that of the pairs."""
        self.policy, self.course, self.pairs = policy, course, pairs
        self.reference = Reference(policy, course.budget, out).learn(pairs, name)

    def measure(self, model: Any, beta: float) -> dict[str, Any]:
        """Return the figures of `model`; none where no pair is held out.

        The implicit reward of an answer is beta times the log-ratio of policy and reference (Rafailov et al. 2023,
        eq. 5); the margin is that of the chosen answer less that of the rejected one.
        """
        if not self.pairs:
            return {}
        with self.policy.autocast():
            log_probs = log_probs_of(model, self.pairs, self.course.budget)
        rewards = beta * (log_probs - self.reference.of(self.pairs))
        margins = rewards[:, 0] - rewards[:, 1]
        lengths = np.array([[len(answer.ids) for answer in pair.answers] for pair in self.pairs])
        return {
            "accuracy": accuracy(margins),
            "margin": float(margins.mean()),
            "chosen": {"reward": float(rewards[:, 0].mean()), "log_prob": float(log_probs[:, 0].mean())},
            "rejected": {"reward": float(rewards[:, 1].mean()), "log_prob": float(log_probs[:, 1].mean())},
            "length": length_bias(rewards, lengths),
            "tasks": by_task(margins, [pair.task for pair in self.pairs]),
        }


def figures_in(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures that are drawn as curves and compared from run to run."""
    if not found:
        return {}
    return {
        "pair_accuracy": found["accuracy"]["value"],
        "pair_accuracy_low": found["accuracy"]["low"],
        "pair_accuracy_high": found["accuracy"]["high"],
        "margin": found["margin"],
        "chosen_reward": found["chosen"]["reward"],
        "rejected_reward": found["rejected"]["reward"],
        "chosen_log_prob": found["chosen"]["log_prob"],
        "rejected_log_prob": found["rejected"]["log_prob"],
    }
