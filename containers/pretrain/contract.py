"""The pretrain stage: corpus + tokenizer -> a base model, from scratch or continued from a checkpoint."""

from containers.contract import Dataset, Frozen, Model, Stage, Tokenizer
from containers.pretrain.config import PretrainConfig, ShapeConfig

__all__ = ["STAGE", "PretrainConfig", "PretrainInputs", "PretrainOutputs", "ShapeConfig"]


class PretrainInputs(Frozen):
    """What earlier stages made."""

    corpus: Dataset
    tokenizer: Tokenizer
    start: Model | None = None
    """Continue from this model instead of from random weights."""


class PretrainOutputs(Frozen):
    """What the stage makes."""

    model: Model


STAGE = Stage("pretrain", PretrainConfig, PretrainInputs, PretrainOutputs, preload=("torch", "transformers"))
