"""The tokenizer stage: corpus -> byte-level BPE with special tokens and a chat template."""

from pydantic import Field

from containers.contract import Config, Dataset, Frozen, Stage, Tokenizer


class TokenizerConfig(Config):
    """What a person chooses."""

    vocab_size: int = Field(2048, ge=300)
    """Tokens in all, special ones included. More tokens: shorter sequences, but a larger share of a small model
    goes into its embedding (vocab_size x width weights). 2k suits 2M weights, 32k suits 300M."""
    min_frequency: int = Field(2, ge=1)
    """A pair is merged only if it occurs this often; higher keeps one-off strings out of the vocabulary."""
    sample_bytes: int = Field(1_000_000_000, ge=1_000)
    """Bytes of text to learn from, drawn evenly from the train split. Memory and time grow with the number of
    distinct words in it: about 3 minutes and 2 GB for 1 GB of web text on two cores."""


class TokenizerInputs(Frozen):
    """What earlier stages made."""

    corpus: Dataset


class TokenizerOutputs(Frozen):
    """What the stage makes."""

    tokenizer: Tokenizer


STAGE = Stage(
    "tokenizer",
    TokenizerConfig,
    TokenizerInputs,
    TokenizerOutputs,
    preload=("pyarrow.parquet", "pyarrow.compute", "tokenizers", "jinja2.sandbox"),
)
