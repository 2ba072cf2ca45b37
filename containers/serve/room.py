"""How many answers run or wait, and how long one takes: what a client is told when there is no room."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_GUESS_SECONDS = 1.0
NEWEST_WEIGHT = 0.2
LONGEST_WAIT_SECONDS = 30.0


class Room:
    """Counts answers over all requests; they begin on the event loop and end in threads of their own."""

    def __init__(self, slots: int) -> None:
        """Begin empty; `slots` answers run at once."""
        self.taken = 0
        """Answers that run or wait."""
        self._slots = slots
        self._lock = threading.Lock()
        self._seconds = FIRST_GUESS_SECONDS

    def enter(self, answers: int) -> None:
        """Count answers that have been let in."""
        with self._lock:
            self.taken += answers

    def leave(self) -> None:
        """Count one less."""
        with self._lock:
            self.taken -= 1

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Take an answer's time into the running mean."""
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._seconds += NEWEST_WEIGHT * (time.monotonic() - began - self._seconds)

    def seconds_to_wait(self) -> float:
        """Return when there is likely room: all that waits has to have begun."""
        return min(self._seconds * max(1.0, self.taken / self._slots - 1), LONGEST_WAIT_SECONDS)
