"""Benchmarks: ratios side by side in one run."""

import os
from pathlib import Path


def cache_of(pin: str) -> Path:
    """Return where the packages of `name==version` are kept, which a benchmark compares with and nothing here needs."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slipway/bench" / pin.replace("==", "-")
