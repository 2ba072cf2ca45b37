"""The sft stage: model + instructions -> a model that answers (full), or an adapter of it (lora, qlora)."""

from typing import cast

from containers.contract import Adapter, Dataset, Frozen, Model, Stage
from containers.sft.config import FullConfig, LoRAConfig, Method, QLoRAConfig, SFTConfig

__all__ = ["STAGE", "FullConfig", "LoRAConfig", "QLoRAConfig", "SFTConfig", "SFTInputs", "SFTOutputs"]


class SFTInputs(Frozen):
    """What earlier stages made."""

    base: Model
    instructions: Dataset


class SFTOutputs(Frozen):
    """What the stage makes: a whole model or an adapter."""

    model: Model | Adapter


STAGE = Stage(
    "sft",
    cast("type[Method]", SFTConfig),
    SFTInputs,
    SFTOutputs,
    preload=("trl.trainer.sft_trainer", "peft", "bitsandbytes"),
)
