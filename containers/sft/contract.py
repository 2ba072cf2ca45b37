"""The sft stage: model + instructions -> a model that answers (full), or an adapter of it (lora, qlora)."""

from containers.contract import Adapter, Config, Dataset, Frozen, Model, Stage


class SFTConfig(Config):
    """What a person chooses."""


class SFTInputs(Frozen):
    """What earlier stages made."""

    base: Model
    instructions: Dataset


class SFTOutputs(Frozen):
    """What the stage makes: a whole model or an adapter."""

    model: Model | Adapter


STAGE = Stage("sft", SFTConfig, SFTInputs, SFTOutputs, preload=("trl.trainer.sft_trainer", "peft"))
