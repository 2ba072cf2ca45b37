"""The rlhf stage: policy + reward model + prompts -> a policy whose answers the reward model likes better."""

from typing import cast

from containers.contract import Adapter, Dataset, Frozen, Model, RewardModel, Stage
from containers.rlhf.config import Algorithm, PPOConfig, RLHFConfig
from containers.rlhf.rloo_config import RLOOConfig

__all__ = ["STAGE", "PPOConfig", "RLHFConfig", "RLHFInputs", "RLHFOutputs", "RLOOConfig"]


class RLHFInputs(Frozen):
    """What earlier stages made."""

    policy: Model
    reward: RewardModel
    """Its tokenizer and template are the policy's own."""
    prompts: Dataset
    """Preferences (their prompts), or instructions (what comes before the last answer)."""


class RLHFOutputs(Frozen):
    """What the stage makes: a whole model or an adapter."""

    model: Model | Adapter


STAGE = Stage(
    "rlhf",
    cast("type[Algorithm]", RLHFConfig),
    RLHFInputs,
    RLHFOutputs,
    preload=("trl.trainer.rloo_trainer", "peft", "bitsandbytes"),
)
