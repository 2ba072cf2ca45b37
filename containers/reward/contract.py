"""The reward stage: model + preferences -> a reward model, which says how good an answer is as one number."""

from pydantic import Field

from containers.contract import Dataset, Frozen, Model, RewardModel, Stage
from containers.pairs.rows import PairsConfig


class RewardConfig(PairsConfig):
    """How a scalar head, and the weights below it, learn from pairs."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak step size; about 1e-5 for all weights of a large model, 1e-4 for an adapter."""
    center_rewards: float = Field(0.01, ge=0)
    """Weight of the squared sum of a pair's two scores in the loss, which keeps scores around zero (Eisenstein et al.
    2023, arXiv:2312.09244, eq. 2); pairs alone leave their level open."""


class RewardInputs(Frozen):
    """What earlier stages made."""

    base: Model
    preferences: Dataset


class RewardOutputs(Frozen):
    """What the stage makes: a whole model folder, an adapter merged into it."""

    reward: RewardModel


STAGE = Stage(
    "reward",
    RewardConfig,
    RewardInputs,
    RewardOutputs,
    preload=("trl.trainer.reward_trainer", "peft", "bitsandbytes"),
)
