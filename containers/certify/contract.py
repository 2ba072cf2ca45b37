"""The certify stage: tokenizer + conversations -> the mask certificate, which sft makes again before it trains."""

from pydantic import Field

from containers.contract import Config, Dataset, Frozen, Stage, Tokenizer


class CertifyConfig(Config):
    """What a person chooses."""

    max_length: int = Field(1024, ge=8)
    """Tokens of a conversation that are kept; that of `sft`."""


class CertifyInputs(Frozen):
    """What earlier stages made."""

    base: Tokenizer
    """The tokenizer of the model that will be trained; its weights are not needed."""
    instructions: Dataset


class CertifyOutputs(Frozen):
    """What the certificate says; certificate.json and mask.html are in the card."""

    broken: tuple[str, ...]
    """Claims that do not hold, each with what was seen; training refuses to start unless there are none."""
    conversations: int
    tokens: int
    trained_tokens: int
    truncated: int
    """Conversations that are cut to `max_length` and lose their end."""
    dropped_empty: int
    """Conversations without a trained token in their first `max_length` tokens."""


STAGE = Stage(
    "certify",
    CertifyConfig,
    CertifyInputs,
    CertifyOutputs,
    preload=("transformers", "pyarrow.parquet", "tokenizers", "jinja2.sandbox"),
)
