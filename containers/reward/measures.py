"""What the card says about a reward model: agreement with people, how sure it may be, what it owes to length."""

from typing import Any

import numpy as np

from containers.pairs.measures import accuracy, by_task, calibration, length_bias
from containers.pairs.rows import Pair


def measured(scores: np.ndarray, pairs: list[Pair]) -> dict[str, Any]:
    """Return the held-out figures for scores (pairs, 2) of chosen and rejected answers; none for no pairs."""
    if not pairs:
        return {}
    margins = scores[:, 0] - scores[:, 1]
    table, error = calibration(margins)
    lengths = np.array([[len(answer.ids) for answer in pair.answers] for pair in pairs])
    return {
        "accuracy": accuracy(margins),
        "margin": {"mean": float(margins.mean()), "deviation": float(margins.std())},
        "score": {"chosen": float(scores[:, 0].mean()), "rejected": float(scores[:, 1].mean()),
                  "deviation": float(scores.std())},
        "loss": float(np.logaddexp(0, -margins).mean()),
        "calibration": table,
        "expected_calibration_error": error,
        "length": length_bias(scores, lengths),
        "tasks": by_task(margins, [pair.task for pair in pairs]),
    }  # fmt: skip


def figures_in(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures that are compared from run to run."""
    if not found:
        return {}
    figures = {
        "pair_accuracy": found["accuracy"]["value"],
        "pair_accuracy_low": found["accuracy"]["low"],
        "pair_accuracy_high": found["accuracy"]["high"],
        "margin": found["margin"]["mean"],
        "calibration_error": found["expected_calibration_error"],
        "length_correlation": found["length"]["correlation"],
        "shorter_chosen_accuracy": (found["length"]["chosen_shorter"] or {}).get("value"),
    }
    return {name: value for name, value in figures.items() if value is not None}
