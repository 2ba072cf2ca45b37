"""Long work in chunks: each is on disk when it is done, and a killed run goes on after the last one."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from containers.out import Out, write_last

T = TypeVar("T")
Rows = list[dict[str, Any]]


def in_chunks(
    items: Sequence[T], size: int, work: Path, make: Callable[[int, Sequence[T]], Rows]
) -> Iterator[tuple[int, Rows]]:
    """Yield (items done so far, rows of JSON values) of each chunk of `size` items: made now, or read from `work`.

    `make` gets the chunk's number and items; what it makes must depend on nothing else.
    """
    for number, first in enumerate(range(0, len(items), size)):
        chunk = items[first : first + size]
        file = work / f"chunk-{number:05d}.json"
        if not file.is_file():
            write_last(file, json.dumps(make(number, chunk), ensure_ascii=False))
        rows: Rows = json.loads(file.read_text(encoding="utf-8"))
        yield first + len(chunk), rows


class Pulse:
    """Says how many items are done, at most once a second, so that long work is not taken for stalled."""

    def __init__(self, out: Out, total: int, unit: str) -> None:
        """Speak through `out` of `total` items called `unit`."""
        self.out, self.total, self.unit = out, total, unit
        self.done = 0
        self.spoke = time.monotonic()

    def __call__(self, *_: object) -> None:
        """Say it again if it is time to."""
        if time.monotonic() - self.spoke >= 1:
            self.spoke = time.monotonic()
            self.out.progress(self.done, self.total, self.unit)
