"""Whose turn it is: llama.cpp computes one set of adapters at a time.

It would go on with the set that it has for as long as any answer of it is under way, and let the others starve. So the
sets take turns: all answers of one set that wait begin together; a newcomer of the set whose turn it is joins them as
long as nobody waits for another.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

Adapters = tuple[str, ...]


class Turns:
    """Answers from threads of their own, one set of adapters at a time, in the order in which they came."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._changed = threading.Condition()
        self._set: Adapters | None = None
        self._running = 0
        self._waiting: list[tuple[Adapters, object]] = []

    @contextmanager
    def of(self, adapters: Adapters) -> Iterator[None]:
        """Run the block when it is the turn of `adapters`."""
        ticket = (adapters, object())
        with self._changed:
            if self._running and (self._waiting or self._set != adapters):
                self._waiting.append(ticket)
                self._changed.wait_for(lambda: ticket not in self._waiting)
            else:
                self._set = adapters
                self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                if not self._running and self._waiting:
                    self._begin_next()

    def _begin_next(self) -> None:
        """Let all of the set that has waited longest begin."""
        self._set = self._waiting[0][0]
        self._running = sum(adapters == self._set for adapters, _ in self._waiting)
        self._waiting = [ticket for ticket in self._waiting if ticket[0] != self._set]
        self._changed.notify_all()
