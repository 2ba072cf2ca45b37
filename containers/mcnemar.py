"""McNemar's exact test: whether two models that answered the same questions differ in how often they are right."""

import math

SIGNIFICANT = 0.05
"""A p below this is no chance."""


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided exact p (McNemar 1947): a fair coin for each question that changed sides."""
    total = gained + lost
    tail = float(sum(math.comb(total, k) for k in range(min(gained, lost) + 1)) / 2**total)
    return min(1.0, 2 * tail)
