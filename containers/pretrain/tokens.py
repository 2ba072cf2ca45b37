"""A split of the corpus as token ids, end to end in one file, each document closed by the end-of-text token."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from containers.contract import Dataset, Split, StageError
from containers.formats import ChatFormat
from containers.out import Out

BATCH_ROWS, SAMPLE_ROWS, SAMPLE_CHARACTERS, MARGIN = 1_000, 500, 4_000, 1.2
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Documents:
    """`ids[starts[i]:starts[i + 1]]` is document i."""

    ids: np.ndarray
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per document, the end token included."""
        return np.diff(self.starts)


def tokenize(corpus: Dataset, split: Split, max_tokens: int, chat: ChatFormat, out: Out) -> Documents:
    """Encode documents of `split`, about `max_tokens` of them drawn evenly, into a memory-mapped file in work/."""
    shards = sorted((corpus.path / split).glob("*.parquet"))
    end = chat.token_id("eos_token")
    if end is None:
        raise StageError("the tokenizer names no eos_token: it is needed between documents")
    share, total = share_to_read(shards, max_tokens, chat), corpus.rows.get(split, 0)
    file = out.work / f"{split}.tokens"
    kind = np.dtype(np.uint16 if chat.tokenizer.get_vocab_size() <= 2**16 else np.uint32)
    chat.tokenizer.encode_special_tokens = True
    lengths: list[int] = []
    with file.open("wb") as stream:
        for done, texts in drawn(shards, share):
            for encoding in chat.tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                stream.write(np.array([*encoding.ids, end], dtype=kind).tobytes())
                lengths.append(len(encoding.ids) + 1)
            out.progress(done, total, "documents")
    if max(lengths, default=0) < 2:
        raise StageError(f"the {split} split of the corpus has no text to learn from: give more `data.corpus` sources")
    return Documents(np.memmap(file, dtype=kind, mode="r"), np.concatenate([[0], np.cumsum(lengths)]))


def share_to_read(shards: list[Path], max_tokens: int, chat: ChatFormat) -> float:
    """Return the share of the documents that holds `max_tokens`, with a margin, judged by how the first 500 begin."""
    size = sum(pc.sum(pc.binary_length(column)).as_py() or 0 for column in columns(shards))
    sample = [text[:SAMPLE_CHARACTERS] for text in next(drawn(shards, 1.0, SAMPLE_ROWS), (0, []))[1]]
    per_token = sum(len(t.encode()) for t in sample) / max(1, sum(len(chat.encode(t)) for t in sample))
    return min(1.0, MARGIN * max_tokens * per_token / max(1, size))


def drawn(shards: list[Path], share: float, rows: int = BATCH_ROWS) -> Iterator[tuple[int, list[str]]]:
    """Yield (rows seen, non-empty texts) of a `share` of the rows, the first among them.

    Row i is taken when the fraction of i x golden ratio is below `share` (Weyl's sequence): spread evenly, and out of
    step with any order in which sources alternate.
    """
    seen = 0
    for column in columns(shards, rows):
        taken = np.flatnonzero(np.arange(seen, seen + len(column)) * GOLDEN % 1 < share)
        seen += len(column)
        yield seen, [text for text in column.take(taken).to_pylist() if text]


def columns(shards: list[Path], rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
    """Yield the text column in batches."""
    for shard in shards:
        for batch in pq.ParquetFile(shard).iter_batches(rows, columns=["text"]):
            yield batch.column(0)
