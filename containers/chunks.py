"""Long work in chunks: each is on disk when it is done, and a killed run goes on after the last one."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from containers.out import write_last

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
