"""Which weights a stage trains: all of them, a low-rank adapter beside them, or one beside 4-bit weights. No torch."""

from typing import Annotated, Literal

from pydantic import Field

from containers.contract import Config


class LowRank(Config):
    """A product of two thin matrices beside frozen weights (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = Field(16, ge=1)
    """Rank of the product: parameters and capacity grow with it."""
    alpha: float = Field(32.0, gt=0)
    """The product is scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of the adapter's inputs that are zeroed in training."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the projections that get an adapter (q_proj, v_proj, ...), or every linear layer but the head."""


class FullWeights(Config):
    """Train all weights; the reference of an alignment stage is then a second, frozen copy."""

    method: Literal["full"] = "full"
    """full | lora | qlora."""


class LoRAWeights(LowRank):
    """Train an adapter; the reference of an alignment stage is the same model with the adapter switched off."""

    method: Literal["lora"] = "lora"
    """full | lora | qlora."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs that are zeroed in training; noise that alignment does not need."""


class QLoRAWeights(LowRank):
    """Train an adapter on a base of 4-bit NormalFloats (Dettmers et al. 2023, arXiv:2305.14314)."""

    method: Literal["qlora"] = "qlora"
    """full | lora | qlora."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs that are zeroed in training; noise that alignment does not need."""
    double_quantization: bool = True
    """Quantize the scales too: 0.37 bits per parameter less."""


Weights = Annotated[FullWeights | LoRAWeights | QLoRAWeights, Field(discriminator="method")]
"""The choice of an alignment stage (`dpo: {weights: {method: lora, r: 8}}`)."""
