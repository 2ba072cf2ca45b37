"""Learn a byte-level BPE from a corpus and save it as a Hugging Face tokenizer folder.

By hand: python -m containers.entrypoint FOLDER   (request.json with stage "tokenizer")
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from containers.contract import Dataset, StageError, Tokenizer
from containers.formats import ChatFormat, identity_of
from containers.out import Out
from containers.tokenizer.bpe import blank, learn
from containers.tokenizer.card import describe
from containers.tokenizer.contract import TokenizerConfig, TokenizerInputs, TokenizerOutputs
from containers.tokenizer.folder import save

BATCH_ROWS = 1_000
GOLDEN = (5**0.5 - 1) / 2


def run(config: TokenizerConfig, inputs: TokenizerInputs, out: Out) -> TokenizerOutputs:
    """Learn the vocabulary from the train split, save it, and measure it on the validation split."""
    share = share_to_read(inputs.corpus, config)
    bpe = blank()
    learn(bpe, texts(inputs.corpus, share, out), config)
    if (found := bpe.get_vocab_size()) < config.vocab_size:
        out.say(f"the corpus yields only {found:,} of {config.vocab_size:,} tokens: it is small or uniform", "warning")
    folder = out.artifact("tokenizer")
    save(bpe, folder)
    card = describe(ChatFormat.load(folder), inputs.corpus)
    out.record(vocab_size=card["vocab_size"], bytes_per_token=card["bytes_per_token"])
    out.write_card(**card, trained_share=share)
    out.say(f"{found:,} tokens; {card['bytes_per_token']:.2f} bytes per token on {card['measured_on']}")
    return TokenizerOutputs(tokenizer=Tokenizer.of(folder, **identity_of(folder)))


def share_to_read(corpus: Dataset, config: TokenizerConfig) -> float:
    """Return which share of the documents holds `sample_bytes`; raises StageError when there is no text."""
    size = sum(pc.sum(pc.binary_length(batch)).as_py() or 0 for batch in columns(corpus))
    if not size:
        raise StageError(f"the train split of the corpus ({corpus.path.name}) has no text: give `data.corpus` sources")
    return min(1.0, config.sample_bytes / size)


def texts(corpus: Dataset, share: float, out: Out) -> Iterator[list[str]]:
    """Yield batches of documents, a `share` of them, reporting progress."""
    done = 0
    for batch in columns(corpus):
        # Weyl's sequence: an even share of the rows, the first among them, out of step with alternating sources.
        taken = [i for i in range(len(batch)) if (done + i) * GOLDEN % 1 < share]
        yield [text for text in batch.take(taken).to_pylist() if text]
        done += len(batch)
        out.progress(done, corpus.rows.get("train", done), "rows")


def columns(corpus: Dataset) -> Iterator[pa.Array]:
    """Yield the text column of the train split in batches."""
    for shard in sorted(Path(corpus.path / "train").glob("*.parquet")):
        for batch in pq.ParquetFile(shard).iter_batches(BATCH_ROWS, columns=["text"]):
            yield batch.column(0)
