"""The dpo stage: policy + preferences -> an aligned model (full) or an adapter of it (lora, qlora); no reward model."""

from typing import Literal, Self

from pydantic import Field, model_validator

from containers.contract import Adapter, Dataset, Frozen, Model, Stage
from containers.pairs.rows import PairsConfig


class DPOConfig(PairsConfig):
    """How a policy learns from pairs, held to where it started from."""

    loss: Literal["dpo", "ipo", "kto"] = "dpo"
    """dpo: logistic loss on the difference of log-ratios (Rafailov et al. 2023, arXiv:2305.18290); ipo: that difference
    per token is drawn to 1 / (2 beta), which cannot run away on preferences without noise (Azar et al. 2023,
    arXiv:2310.12036); kto: each answer alone against an estimate of the KL (Ethayarajh et al. 2024,
    arXiv:2402.01306)."""
    beta: float = Field(0.1, gt=0)
    """Price of leaving the reference: small lets the policy go far; 0.1 to 0.5 is usual."""
    nll_weight: float = Field(0.0, ge=0)
    """Weight of the better answer's negative log-likelihood beside the loss, which alone may make both answers unlikely
    (Pang et al. 2024, arXiv:2404.19733); 1 for a small model, or where answers fall apart."""

    @model_validator(mode="after")
    def check_loss(self) -> Self:
        """Refuse a weight that the loss has no place for."""
        if self.loss == "kto" and self.nll_weight:
            raise ValueError("nll_weight stands beside dpo and ipo: kto has no pairs")
        return self


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
