"""Rate limits per key: a bucket of requests and a bucket of tokens, each filled anew over a minute."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from containers.serve.contract import ServeConfig
from containers.serve.errors import APIError

MINUTE = 60.0


@dataclass
class Bucket:
    """`size` units that come back evenly over a minute."""

    size: float
    level: float
    filled: float
    """Clock of the last filling, seconds."""

    def wait(self, wanted: float, now: float) -> float:
        """Return the seconds until `wanted` units are there, 0 when they are."""
        self.level = min(self.size, self.level + (now - self.filled) * self.size / MINUTE)
        self.filled = now
        return max(0.0, (wanted - self.level) * MINUTE / self.size)


class Limits:
    """The buckets of every key that has asked."""

    def __init__(self, config: ServeConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the limits; `clock` gives seconds."""
        self._sizes = {"requests": config.requests_per_minute, "tokens": config.tokens_per_minute}
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def take(self, owner: str, tokens: int) -> None:
        """Take one request and `tokens` of a key's; raises APIError 429 with the time to wait, and takes nothing."""
        wanted = {"requests": 1, "tokens": tokens}
        taken = [(self._bucket(owner, unit), wanted[unit], unit) for unit, size in self._sizes.items() if size]
        now = self._clock()
        for bucket, amount, unit in taken:
            if amount > bucket.size:
                message = f"the request may use {amount} {unit}, this key has {bucket.size:.0f} a minute: ask for less"
                raise APIError(400, message, code="rate_limit_exceeded", param="max_tokens")
            if seconds := bucket.wait(amount, now):
                message = f"this key has {bucket.size:.0f} {unit} a minute: try again in {math.ceil(seconds)} s"
                raise APIError(429, message, code="rate_limit_exceeded", headers=retry_after(seconds))
        for bucket, amount, _ in taken:
            bucket.level -= amount

    def give_back(self, owner: str, tokens: int) -> None:
        """Return tokens that were taken and not used."""
        if self._sizes["tokens"]:
            bucket = self._bucket(owner, "tokens")
            bucket.level = min(bucket.size, bucket.level + tokens)

    def _bucket(self, owner: str, unit: str) -> Bucket:
        size = float(self._sizes[unit] or 0)
        return self._buckets.setdefault((owner, unit), Bucket(size, size, self._clock()))


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header that says when to come back: whole seconds, 1 at least."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
