"""How far raters agree: the share of equal verdicts, and Krippendorff's alpha, which takes off what chance would give.

Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", for nominal data: any number of raters, not all of whom
need to have seen everything. Here a unit is two answers to one prompt, and a verdict which of them is better.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import permutations
from typing import Any

Verdict = int
"""1: the one is better, -1: the other, 0: a tie."""
Coincidences = dict[tuple[Any, Any], float]
"""(value, other value) -> how often they met."""


def agreement_of(units: Iterable[Sequence[Verdict]]) -> dict[str, float | int | None]:
    """Return `alpha` (1: agreed, 0: as by chance), the `agreeing_share` and how many verdicts were `compared`.

    Both figures are None where no unit has two raters. Which of two answers is called the one must not matter, so every
    unit counts for alpha as it is and with its answers exchanged, half each.
    """
    several = [unit for unit in units if len(unit) > 1]
    met = [pair for unit in several for pair in permutations(unit, 2)]
    both: Coincidences = defaultdict(float)
    for (one, other), count in coincidences(several).items():
        both[one, other] += count / 2
        both[-one, -other] += count / 2
    share = sum(one == other for one, other in met) / len(met) if met else None
    return {"alpha": alpha_of(both), "agreeing_share": share, "compared": len(met) // 2}


def coincidences(units: Iterable[Sequence[Hashable]]) -> Coincidences:
    """Return how often each two values met in one unit, each unit weighing as much as it has values."""
    found: Coincidences = defaultdict(float)
    for unit in units:
        for one, other in permutations(unit, 2):
            found[one, other] += 1 / (len(unit) - 1)
    return found


def alpha_of(met: Coincidences) -> float | None:
    """Return Krippendorff's alpha of coincidences; None where there are none, or only one value was ever given."""
    values: dict[Any, float] = defaultdict(float)
    for (one, _), count in met.items():
        values[one] += count
    total = sum(values.values())
    expected = sum(values[one] * values[other] for one, other in permutations(values, 2))
    if not expected:
        return None
    observed = sum(count for (one, other), count in met.items() if one != other)
    return 1 - (total - 1) * observed / expected
