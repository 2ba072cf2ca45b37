"""A measure with its 95% interval: the percentile bootstrap over independent rows (Efron 1979)."""

import numpy as np


class Bootstrap:
    """Resamples rows with replacement, the same way for every run with the same seed."""

    def __init__(self, resamples: int, seed: int) -> None:
        """Take the number of resamples behind an interval."""
        self.resamples, self.seed = resamples, seed

    def mean(self, measure: str, values: list[float]) -> dict[str, str | float]:
        """Return the score of one value per row: measure, value, low, high, n."""
        return self.ratio(measure, np.array(values, dtype=float), np.ones(len(values)))

    def ratio(self, measure: str, above: np.ndarray, below: np.ndarray) -> dict[str, str | float]:
        """Return the score of sum(above) / sum(below), rows (documents, say) resampled as pairs."""
        random = np.random.default_rng(self.seed)
        found = np.empty(self.resamples)
        # One resample at a time: all at once would take resamples x rows of memory.
        for i in range(self.resamples):
            picked = random.integers(0, len(above), len(above))
            found[i] = above[picked].sum() / max(below[picked].sum(), 1e-12)
        low, high = np.percentile(found, [2.5, 97.5])
        value = above.sum() / max(below.sum(), 1e-12)
        return {"measure": measure, "value": float(value), "low": float(low), "high": float(high), "n": len(above)}
