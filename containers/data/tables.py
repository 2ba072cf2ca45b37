"""Records from tables: CSV and TSV by row, parquet by batch."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from containers.contract import StageError
from containers.data.records import Record, Reject
from containers.data.streams import Source, lines_of

BATCH_ROWS = 1024
MAX_CELL = 1 << 28


def from_csv(source: Source) -> Iterator[Record | Reject]:
    """Yield one record per row under the header's names; the line is the one where the row ends."""
    csv.field_size_limit(MAX_CELL)
    broken: list[Reject] = []

    def text_lines() -> Iterator[str]:
        for number, text, reason in lines_of(source):
            if text is None:
                broken.append(Reject(source.name, number, reason))
            else:
                yield text.replace("\0", "") + "\n"

    rows = csv.reader(text_lines(), delimiter="\t" if ".tsv" in source.name.lower() else delimiter_of(source.head))
    header = next(rows, [])
    if len(header) != len(set(header)):
        raise StageError(f"{source.name}:1: the header names a column twice: {', '.join(header)}")
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield Reject(source.name, rows.line_num, f"not CSV: {error}")
            continue
        yield from broken
        broken.clear()
        if row is None:
            return
        if len(row) == len(header):
            yield Record(source.name, rows.line_num, dict(zip(header, row, strict=True)))
        elif row:
            yield Reject(source.name, rows.line_num, f"{len(row)} cells under a header of {len(header)}")


def delimiter_of(head: bytes) -> str:
    """Return the most frequent of comma, semicolon and tab in the header line."""
    header = head.split(b"\n", 1)[0].decode("utf-8", "replace")
    return max(",;\t", key=header.count)


def from_parquet(path: Path, name: str) -> Iterator[Record | Reject]:
    """Yield one record per row; raises StageError when the footer is damaged, rejects the rest where a page is."""
    number = 0
    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{name}:1: not a readable parquet file ({error}): write it again") from error
    with table:
        try:
            for batch in table.iter_batches(BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(name, number, values)
        except (pa.ArrowException, OSError) as error:
            yield Reject(name, number + 1, f"the parquet file is damaged from this row on ({error})")
