"""The merge stage: base + adapter -> one 16-bit model, proven to give the adapter's logits."""

from containers.contract import Adapter, Config, Frozen, Model, Stage


class MergeConfig(Config):
    """What a person chooses."""


class MergeInputs(Frozen):
    """What earlier stages made."""

    base: Model
    adapter: Adapter


class MergeOutputs(Frozen):
    """What the stage makes."""

    model: Model


STAGE = Stage("merge", MergeConfig, MergeInputs, MergeOutputs, preload=("peft", "transformers"))
