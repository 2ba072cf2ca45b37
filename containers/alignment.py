"""What a person chooses for every stage that aligns a policy: weights, optimisation, machine. Pydantic alone."""

from typing import Literal

from pydantic import Field

from containers.contract import Config, aside
from containers.weights import FullWeights, Weights


class AlignmentConfig(Config):
    """What reward, rlhf, dpo and grpo share."""

    weights: Weights = FullWeights()
    """Which weights are trained: `{method: full}`, or an adapter (`lora`, `qlora`), which needs no second copy."""
    learning_rate: float = Field(1e-6, gt=0)
    """Peak step size; 5e-7 to 5e-6 for all weights of a large model, ten times more for an adapter."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the learning rate after the warm-up; linear and cosine end at zero."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the learning rate rises from zero."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled decay per step, times the learning rate."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Longer gradients are scaled down to this length."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalised steps for the matrices, where earlier stages took them too."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Arithmetic of the forward and backward pass; a CPU without bf16 instructions, and fp16 on any CPU, mean fp32."""
    gradient_checkpointing: bool = False
    """Keep one activation per layer and compute the others again: a third slower, far less memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU when there is one."""
    threads: int = Field(2, ge=1)
    """CPU threads; the bits of the result depend on it."""
    seed: int = 0
    """Of the order of the rows, of sampling and of an adapter's first weights."""
    logging_steps: int = aside(5, ge=1)
    """Optimizer steps between two points of the curves."""
