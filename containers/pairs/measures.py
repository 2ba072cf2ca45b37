"""How well a model that prefers answers agrees with people: pair accuracy with its interval, calibration, length bias.

A margin is the model's log-odds that the chosen answer is the better one (Bradley and Terry 1952).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
BINS = 10
"""Of calibration, from a confidence of 0.5 to 1."""


def accuracy(margins: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the share of positive margins (a tie counts half) and its 95% percentile bootstrap (Efron 1979)."""
    right = (np.sign(margins).astype(float) + 1) / 2
    random = np.random.default_rng(seed)
    drawn = [right[random.integers(0, len(right), len(right))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": float(right.mean()), "low": float(low), "high": float(high), "pairs": len(right)}


def calibration(margins: np.ndarray) -> tuple[list[dict[str, float]], float]:
    """Return (table, expected calibration error): how sure the model is of its preference and how often people agree.

    The side that the model prefers has P = sigmoid(|margin|) >= 0.5; the mirror image below 0.5 says nothing new. The
    error is the mean of |P - observed| over the bins, weighed by pairs (Guo et al. 2017, arXiv:1706.04599).
    """
    sure = 1 / (1 + np.exp(-np.abs(margins)))
    right = (np.sign(margins) + 1) / 2
    places = np.minimum(((sure - 0.5) * 2 * BINS).astype(int), BINS - 1)
    table = []
    for place in range(BINS):
        inside = places == place
        if inside.any():
            table.append(
                {
                    "from": round(0.5 + place / (2 * BINS), 3),
                    "to": round(0.5 + (place + 1) / (2 * BINS), 3),
                    "pairs": int(inside.sum()),
                    "predicted": float(sure[inside].mean()),
                    "observed": float(right[inside].mean()),
                }
            )
    error = sum(bin["pairs"] * abs(bin["predicted"] - bin["observed"]) for bin in table) / len(margins)
    return table, float(error)


def length_bias(scores: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    """Return what the scores (pairs, 2) owe to the answers' lengths (pairs, 2) in tokens.

    `correlation`: of score and length over all answers; `margin_correlation`: of both differences within a pair, which
    the difficulty of prompts does not blur; accuracies where the chosen answer is the shorter, or the longer one.
    """
    margins, longer = scores[:, 0] - scores[:, 1], lengths[:, 0] - lengths[:, 1]
    found: dict[str, Any] = {
        "correlation": correlation(scores.ravel(), lengths.ravel()),
        "margin_correlation": correlation(margins, longer),
    }
    for name, where in {"chosen_shorter": longer < 0, "chosen_longer": longer > 0}.items():
        found[name] = accuracy(margins[where]) if where.any() else None
    return found


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return Pearson's correlation; None where one of the two does not vary."""
    if one.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def by_task(margins: np.ndarray, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the accuracy of each task that rows name."""
    named = np.array(tasks)
    return {task: accuracy(margins[named == task]) for task in sorted(set(tasks) - {""})}
