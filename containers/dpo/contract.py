"""The dpo stage: policy + preferences -> an aligned model (full) or an adapter of it (lora, qlora); no reward model."""

from typing import Literal

from pydantic import Field

from containers.contract import Adapter, Dataset, Frozen, Model, Stage
from containers.pairs import PairsConfig


class DPOConfig(PairsConfig):
    """How a policy learns from pairs, held to where it started from."""

    loss: Literal["dpo", "ipo", "kto"] = "dpo"
    """dpo: logistic loss on the difference of log-ratios (Rafailov et al. 2023, arXiv:2305.18290); ipo: that difference
    per token is drawn to 1 / (2 beta), which cannot run away on preferences without noise (Azar et al. 2023,
    arXiv:2310.12036); kto: each answer alone against an estimate of the KL (Ethayarajh et al. 2024,
    arXiv:2402.01306)."""
    beta: float = Field(0.1, gt=0)
    """Price of leaving the reference: small lets the policy go far; 0.1 to 0.5 is usual."""


class DPOInputs(Frozen):
    """What earlier stages made."""

    policy: Model
    preferences: Dataset


class DPOOutputs(Frozen):
    """What the stage makes: a whole model or an adapter."""

    model: Model | Adapter


STAGE = Stage(
    "dpo",
    DPOConfig,
    DPOInputs,
    DPOOutputs,
    preload=("trl.trainer.dpo_trainer", "trl.trainer.kto_trainer", "peft", "bitsandbytes"),
)
