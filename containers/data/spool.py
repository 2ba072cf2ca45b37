"""Rows on their way: cleaned and marked batch by batch, kept on disk until it is known which of them stay."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from containers.contract import Role
from containers.formats import schema_of

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
MARKS = np.dtype(
    [("content", "<u8"), ("group", "<u8"), ("size", "<i8"), ("split", "i1"), ("source", "<i2"), ("builtin", "?")]
)
"""Per row: hash of its texts, hash of its question, characters, split, index of its source, made by a world."""


Tick = Callable[[float, float, str], None]
"""Hears (done, total, unit) of long work, so that nobody takes it for stalled."""


class Spool:
    """Rows as Arrow batches in one file, and beside it what is known of each."""

    def __init__(self, folder: Path, role: Role, tick: Tick) -> None:
        """Begin empty in `folder`; `tick` hears how far each reading of it is."""
        self.tick = tick
        folder.mkdir(parents=True, exist_ok=True)
        self.schema = schema_of(role)
        self.rows_file = folder / "rows.arrow"
        self.marks_file = folder / "marks"
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self.writer = pa.ipc.new_file(str(self.rows_file), self.schema, options=options)
        self.marks = self.marks_file.open("wb")
        self.total = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the files."""
        self.writer.close()
        self.marks.close()

    def add(self, rows: list[dict[str, Any]], marks: npt.NDArray[Any]) -> None:
        """Append rows and their marks."""
        columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in self.schema]
        self.writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        marks.tofile(self.marks)
        self.total += len(rows)

    def read_marks(self) -> npt.NDArray[Any]:
        """Return the marks of every row."""
        return np.fromfile(self.marks_file, dtype=MARKS)

    def each_batch(self, write: Callable[[int, pa.RecordBatch], None]) -> None:
        """Call `write(index of the first row, batch)` for every batch, in order, one in memory at a time."""
        place = 0
        with pa.OSFile(str(self.rows_file)) as stream, pa.ipc.open_file(stream) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                write(place, batch)
                place += batch.num_rows
                self.tick(place, self.total, "rows written")


def hash_of(text: str) -> int:
    """Return 64 bits of blake2b of `text`."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
