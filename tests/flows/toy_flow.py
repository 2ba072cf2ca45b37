"""A flow of one real stage, small enough for tests: corpus -> tokenizer, then a host task."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow

from containers.contract import Config, Dataset, Endpoint, Tokenizer
from containers.tokenizer.contract import TokenizerConfig
from infra.orchestration import run_of, stage_task
from tasks.tokenizer import tokenizer


class ToyRecipe(Config):
    """The toy's numbers."""

    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=300)


def corpus_at(folder: Path) -> Dataset:
    """Return a small corpus, written once."""
    rows = [f"The ship number {i} went down the slipway at noon." for i in range(200)]
    for split in ("train", "validation"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": rows}), folder / split / "part-00000.parquet")
    return Dataset.of(folder, role="corpus", rows={"train": 200, "validation": 200, "test": 0})


@stage_task
def announce(vocabulary: Tokenizer) -> Endpoint:
    """Stand for a host task: it runs no stage."""
    return Endpoint(url="http://127.0.0.1:1", model="toy", bundle=vocabulary.digest)


@flow(name="toy", flow_run_name="{recipe_name}")
def toy(recipe_name: str, folder: str, vocab_size: int = 300) -> Endpoint:
    """Learn a vocabulary."""
    recipe = ToyRecipe(tokenizer=TokenizerConfig(vocab_size=vocab_size))
    with run_of(recipe):
        vocabulary = tokenizer(corpus_at(Path(folder)), recipe.tokenizer)
        return announce(vocabulary)
