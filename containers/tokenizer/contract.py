"""The tokenizer stage: corpus -> byte-level BPE with special tokens and a chat template."""

from pydantic import Field

from containers.contract import Config, Dataset, Frozen, Stage, Tokenizer


class TokenizerConfig(Config):
    """What a person chooses."""

    vocab_size: int = Field(2048, ge=300)
    """Tokens in all, special ones included."""


class TokenizerInputs(Frozen):
    """What earlier stages made."""

    corpus: Dataset


class TokenizerOutputs(Frozen):
    """What the stage makes."""

    tokenizer: Tokenizer


STAGE = Stage("tokenizer", TokenizerConfig, TokenizerInputs, TokenizerOutputs, preload=("tokenizers",))
