"""The grpo stage: a policy + problems with checkable answers -> a policy that answers more of them."""

from containers.contract import Adapter, Dataset, Files, Frozen, Model, Stage
from containers.grpo.config import GRPOConfig

__all__ = ["STAGE", "GRPOConfig", "GRPOInputs", "GRPOOutputs"]


class GRPOInputs(Frozen):
    """What earlier stages made, and what a person wrote."""

    policy: Model
    problems: Dataset
    functions: Files | None = None
    """The files of the rewards of kind function, side by side."""
    recorded: Files | None = None
    """Answers that the judge gave earlier, not asked for again."""


class GRPOOutputs(Frozen):
    """What the stage makes: a whole model or an adapter."""

    model: Model | Adapter


STAGE = Stage("grpo", GRPOConfig, GRPOInputs, GRPOOutputs, preload=("trl.trainer.grpo_trainer", "peft", "bitsandbytes"))
