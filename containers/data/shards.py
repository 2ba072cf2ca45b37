"""Write the kept rows as parquet shards, one folder per split, byte for byte the same on every machine."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from containers.data.splits import Splits, Tail, divided
from containers.data.spool import SPLITS, TRAIN, Spool

SHARD_BYTES = 1 << 28
GROUP_BYTES = 1 << 23


class Shards:
    """The shards of one split."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        """Write `folder`/00000.parquet and so on; the first exists even when it stays empty."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.schema = schema
        self.rows = 0
        self.number = 0
        self.held: list[pa.RecordBatch] = []
        self.held_bytes = 0
        self.written_bytes = 0
        self.writer = self.next_writer()

    def next_writer(self) -> pq.ParquetWriter:
        """Open the next shard."""
        self.written_bytes = 0
        return pq.ParquetWriter(
            self.folder / f"{self.number:05d}.parquet",
            self.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
            store_schema=False,
        )

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows; a row group is written when enough bytes are held."""
        if not batch.num_rows:
            return
        self.held.append(batch)
        self.rows += batch.num_rows
        self.held_bytes += batch.nbytes
        if self.held_bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one row group, and begin a new shard when this one is large enough."""
        if self.written_bytes >= SHARD_BYTES:
            self.writer.close()
            self.number += 1
            self.writer = self.next_writer()
        if self.held:
            self.writer.write_table(pa.Table.from_batches(self.held, schema=self.schema), row_group_size=1 << 30)
        self.written_bytes += self.held_bytes
        self.held, self.held_bytes = [], 0

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        self.writer.close()


def write(
    spool: Spool, folder: Path, splits: Splits, copies: npt.NDArray[np.int32], tails: dict[int, Tail]
) -> dict[str, int]:
    """Write row i of the spool `copies[i]` times into split `splits[i]`; return rows per split.

    Further copies follow after all first ones, so that equal rows do not stand side by side. A row in `tails` is a
    document that is divided between the splits.
    """
    shards = [Shards(folder / name, spool.schema) for name in SPLITS]
    for turn in range(int(copies.max(initial=1))):

        def put(place: int, batch: pa.RecordBatch, turn: int = turn) -> None:
            part = slice(place, place + batch.num_rows)
            cut = [row for row in tails if place <= row < part.stop and copies[row] > turn]
            for split, shard in enumerate(shards):
                wanted = (splits[part] == split) & (copies[part] > turn)
                wanted[[row - place for row in cut]] = False
                shard.add(batch.filter(pa.array(wanted)))
            for row in cut:
                values = batch.slice(row - place, 1).to_pylist()[0]
                for split, text in divided(values["text"], tails[row]):
                    piece = {**values, "text": text, "id": f"{values['id']}-{SPLITS[split]}"}
                    shards[split].add(pa.RecordBatch.from_pylist([piece], schema=spool.schema))

        spool.each_batch(put)
    for shard in shards:
        shard.close()
    return {name: shard.rows for name, shard in zip(SPLITS, shards, strict=True)}


def copies_of(marks: npt.NDArray[Any], kept: npt.NDArray[np.bool_], weights: list[float]) -> npt.NDArray[np.int32]:
    """Return how often each row is written: once, or by its source's weight in the training split.

    The fraction of a weight keeps those rows whose hash falls below it.
    """
    weight = np.array(weights, dtype=np.float64)[marks["source"]]
    whole = np.floor(weight)
    more = (marks["content"] / 2.0**64) < weight - whole
    copies = np.where(marks["split"] == TRAIN, whole + more, 1)
    return np.where(kept, copies, 0).astype(np.int32)
