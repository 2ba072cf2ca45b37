"""What a person chooses for supervised fine-tuning: the method is a type (`sft: {method: qlora, ...}`)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from containers.contract import Config, aside
from containers.weights import LowRank


class LessonsConfig(Config):
    """What the three methods share: the optimisation, the memory and the machine."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak step size of AdamW; 1e-5 to 5e-5 for all weights of a large model, 1e-4 to 3e-4 for an adapter."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the learning rate after the warm-up; linear and cosine end at zero."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the learning rate rises from zero."""
    epochs: int = Field(1, ge=1)
    """Times that every lesson is seen."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps in all, whatever `epochs` says (lessons are repeated or left out)."""
    batch_size: int = Field(16, ge=1)
    """Conversations per optimizer step; the loss is the mean over all their trained tokens."""
    micro_batch_size: int = Field(4, ge=1)
    """Sequences of `max_length` tokens in memory at once; changes memory and speed, not what is learnt."""
    max_length: int = Field(1024, ge=8)
    """Tokens of a conversation that are kept; the rest is cut off (counted in the mask certificate)."""
    packing: bool = True
    """Fill a micro-batch with as many whole conversations as fit its tokens; off: `micro_batch_size` of them."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled decay of AdamW per step, times the learning rate."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Longer gradients are scaled down to this length."""
    optimizer: Literal["adamw", "muon", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"] = "adamw"
    """muon: orthogonalised steps for the matrices, where pretraining took them too; 8bit: optimizer state in a
    quarter of the memory; paged: it moves to the host when the GPU is full (CUDA)."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Arithmetic of the forward and backward pass; a CPU without bf16 instructions, and fp16 on any CPU, mean fp32."""
    gradient_checkpointing: bool = False
    """Keep one activation per layer and compute the others again: a third slower, far less memory."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the model; auto: on a GPU only (on a CPU it takes longer than it saves)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU when there is one."""
    threads: int = Field(2, ge=1)
    """CPU threads; the bits of the result depend on it."""
    seed: int = 0
    """Of the order of the lessons, of dropout and of an adapter's first weights."""
    logging_steps: int = aside(10, ge=1)
    """Optimizer steps between two points of the curves."""
    checkpoint_every: int | Literal["epoch"] = aside("epoch")
    """Optimizer steps between two checkpoints, or one per epoch; a killed run goes on from the newest."""
    validation_rows: int = aside(256, ge=0)
    """Held-out conversations that measure the validation loss after each epoch."""

    @model_validator(mode="after")
    def check_counts(self) -> Self:
        """Refuse numbers that contradict each other."""
        if isinstance(self.checkpoint_every, int) and self.checkpoint_every < 1:
            raise ValueError("checkpoint_every counts optimizer steps: 1 or more, or 'epoch'")
        if self.micro_batch_size > self.batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} is more than batch_size {self.batch_size}")
        return self


class FullConfig(LessonsConfig):
    """Train all weights: the best fit, and 16 bytes of memory per parameter."""

    method: Literal["full"] = "full"
    """full | lora | qlora."""


class LoRAConfig(LessonsConfig, LowRank):
    """Train a low-rank product beside frozen weights."""

    method: Literal["lora"] = "lora"
    """full | lora | qlora."""
    learning_rate: float = Field(2e-4, gt=0)
    """Peak step size of AdamW; 1e-4 to 3e-4, or ten times more for a very small model."""


class QLoRAConfig(LoRAConfig):
    """LoRA on a base whose weights are 4-bit NormalFloats (Dettmers et al. 2023, arXiv:2305.14314)."""

    method: Literal["qlora"] = "qlora"  # type: ignore[assignment]
    """full | lora | qlora."""
    double_quantization: bool = True
    """Quantize the scales too: 0.37 bits per parameter less."""
    compute_precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Type that 4-bit weights are multiplied in; `precision` when absent."""


Method = FullConfig | LoRAConfig | QLoRAConfig
SFTConfig = Annotated[Method, Field(discriminator="method")]
