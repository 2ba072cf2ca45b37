"""The dataset's card: what came in, what each step took, what is left; as JSON for the report, as a page for people."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from containers.contract import Role, Split, digest_of_file
from containers.data.cleaning import Census
from containers.data.contract import DataConfig
from containers.data.fitting import texts_of
from containers.data.page import page_of
from containers.data.reading import Reader
from containers.data.spool import Tick
from containers.out import Out

SAMPLES = 3
BATCH_ROWS = 1024
SAMPLE_CHARACTERS = 280
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass
class Card:
    """Everything that the card is made from."""

    role: Role
    config: DataConfig
    reader: Reader
    census: Census
    steps: dict[str, int]
    rejects: Counter[str]
    rows: dict[str, int]
    tick: Tick


def write_card(card: Card, folder: Path, out: Out) -> None:
    """Write card.json and card.html from the counts and the finished dataset in `folder`."""
    tally = Tally.of(folder, sum(card.rows.values()), card.tick)
    values: dict[str, Any] = {
        "role": card.role,
        "steps": card.steps,
        "rows": card.rows,
        "files": [asdict(seen) for seen in card.reader.recognised],
        "rejects": dict(card.rejects.most_common()),
        "rankings": card.reader.rankings.card(),
        "quality": dict(card.census.quality.most_common()),
        "changed": {name: count for name, count in sorted(card.reader.fitter.counts.items()) if count},
        "pii": {"mode": card.config.pii, "rows": card.census.rows_with_pii, "found": dict(card.census.pii)},
        "choices": card.config.model_dump(mode="json", exclude={"sources"}),
        "sources": dict(sorted(tally.sources.items())),
        "tasks": dict(sorted(tally.tasks.items())),
        "characters": tally.characters,
        "lengths": {str(size): tally.lengths[size] for size in sorted(tally.lengths)},
        "samples": [] if card.role == "preferences" else tally.samples,
        "rejects_digest": digest_of_file(out.card / "rejects.jsonl"),
    }
    out.write_card(**values)
    (out.card / "card.html").write_text(page_of(values), encoding="utf-8")


@dataclass
class Tally:
    """Counts over the finished dataset."""

    sources: Counter[str]
    tasks: Counter[str]
    characters: dict[str, int]
    lengths: Counter[int]
    samples: list[str]

    @classmethod
    def of(cls, folder: Path, total: int, tick: Tick) -> "Tally":
        """Read every shard, one batch at a time."""
        tally = cls(Counter(), Counter(), dict.fromkeys(SPLITS, 0), Counter(), [])
        for split in SPLITS:
            for shard in sorted((folder / split).glob("*.parquet")):
                with pq.ParquetFile(shard) as rows:
                    for group in range(rows.num_row_groups):
                        for batch in rows.read_row_group(group).to_batches(BATCH_ROWS):
                            tally.count(split, batch)
                        tick(tally.tasks.total(), total, "rows counted")
        return tally

    def count(self, split: Split, batch: pa.RecordBatch) -> None:
        """Add rows of one split."""
        for column, counts in (("source", self.sources), ("task", self.tasks)):
            for entry in batch[column].value_counts().to_pylist():
                counts[entry["values"] or ""] += entry["counts"]
        is_text = "text" in batch.schema.names
        sizes = pc.utf8_length(batch["text"]).to_pylist() if is_text else sizes_of(batch)
        self.characters[split] += sum(sizes)
        self.lengths.update(1 << max(size - 1, 0).bit_length() for size in sizes)
        missing = SAMPLES - len(self.samples) if split == "train" else 0
        self.samples += [shortened("\n\n".join(texts_of(row))) for row in batch.slice(0, missing).to_pylist()]


def sizes_of(batch: pa.RecordBatch) -> list[int]:
    """Return the characters of each row of messages."""
    return [sum(map(len, texts_of(row))) for row in batch.to_pylist()]


def shortened(text: str) -> str:
    """Return the beginning of `text`."""
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS].rstrip() + " ..."
