"""A flow of one real stage, small enough for tests: corpus -> tokenizer, then a host task."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow

from containers.contract import Config, Dataset, Endpoint, StageError, Tokenizer
from containers.tokenizer.contract import TokenizerConfig
from infra.orchestration import run_of, short_name, stage_task
from tasks.tokenizer import tokenizer

REFUSED = 310
"""The vocabulary size that makes the flow's last task fail."""


class ToyRecipe(Config):
    """The toy's numbers."""

    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=300)


def corpus_at(folder: Path, rows: int) -> Dataset:
    """Return a corpus of so many documents; a large one keeps the tokenizer busy for a while."""
    draw = random.Random(0)
    texts = [f"The ship number {i} went down the slipway at {draw.getrandbits(64):x}." for i in range(rows)]
    for split, share in (("train", rows), ("validation", 100)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": texts[:share]}), folder / split / "part-00000.parquet")
    return Dataset.of(folder, role="corpus", rows={"train": rows, "validation": 100, "test": 0})


@stage_task
def refuse(vocabulary: Tokenizer) -> Endpoint:
    """Stand for a task that fails at once, and must not be tried again."""
    raise StageError(f"the vocabulary at {vocabulary.path.name} has the wrong size: choose another")


@stage_task
def announce(vocabulary: Tokenizer) -> Endpoint:
    """Stand for a host task: it runs no stage."""
    return Endpoint(url="http://127.0.0.1:1", model="toy", bundle=vocabulary.digest)


@flow(name="toy", flow_run_name=short_name)
def toy(recipe_name: str, folder: str, vocab_size: int = 300, rows: int = 200) -> Endpoint:
    """Learn a vocabulary."""
    recipe = ToyRecipe(tokenizer=TokenizerConfig(vocab_size=vocab_size))
    with run_of(recipe):
        vocabulary = tokenizer(corpus_at(Path(folder), rows), recipe.tokenizer)
        return announce(vocabulary) if vocab_size != REFUSED else refuse(vocabulary)
