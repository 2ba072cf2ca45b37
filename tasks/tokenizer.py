"""Learn the vocabulary."""

from containers.contract import Dataset, Tokenizer
from containers.tokenizer.contract import STAGE, TokenizerConfig, TokenizerInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def tokenizer(corpus: Dataset, config: TokenizerConfig) -> Tokenizer:
    """Learn a byte-level BPE from the corpus."""
    return run_stage(STAGE, config, TokenizerInputs(corpus=corpus)).tokenizer
