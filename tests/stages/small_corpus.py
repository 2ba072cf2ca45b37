"""A corpus small enough for a test: short invented stories with numbers in them, as a Dataset on disk."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from containers.contract import Dataset
from containers.formats import schema_of

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
THINGS = ("apples", "books", "coins", "drums", "eggs", "flags", "gloves", "hats")


def stories(count: int, seed: int) -> list[str]:
    """Return `count` stories of one to six sentences."""
    draw = random.Random(seed)
    return [" ".join(sentence(draw) for _ in range(draw.randint(1, 6))) for _ in range(count)]


def sentence(draw: random.Random) -> str:
    have, more = draw.randint(2, 49), draw.randint(2, 49)
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    return f"{name} had {have} {thing} and found {more} more, so {name} has {have + more} {thing} now."


def dataset_of(folder: Path, **splits: list[str]) -> Dataset:
    """Write each split's texts as one parquet shard below `folder`; return the corpus."""
    for split, texts in splits.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        schema = schema_of("corpus")
        empty = [None] * len(texts)
        columns = {name: texts if name == "text" else empty for name in schema.names}
        pq.write_table(pa.table(columns, schema=schema), folder / split / "part-00000.parquet")
    rows = {split: len(texts) for split, texts in splits.items()}
    return Dataset.of(folder, role="corpus", rows=rows)


def small_corpus(folder: Path, documents: int = 600) -> Dataset:
    """Return a corpus of stories with a train and a validation split."""
    return dataset_of(folder, train=stories(documents, 1), validation=stories(max(20, documents // 10), 2))
