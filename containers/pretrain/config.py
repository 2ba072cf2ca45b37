"""Every knob of pretraining, in units and consequences."""

from typing import Literal

from pydantic import Field

from containers.contract import Config, aside


class ShapeConfig(Config):
    """A Llama shape spelt out."""

    width: int = Field(ge=32, multiple_of=32)
    """Size of the residual stream (hidden_size)."""
    layers: int = Field(ge=1)
    """Transformer blocks; time and memory grow with layers x width^2."""
    heads: int = Field(ge=1)
    """Query heads; width / heads is the head size."""
    kv_heads: int = Field(ge=1)
    """Key and value heads, a divisor of heads; fewer make the serving cache smaller."""
    ffn: int = Field(ge=32, multiple_of=32)
    """Inner size of the gated feed-forward layer (intermediate_size)."""


class PretrainConfig(Config):
    """What a person chooses."""

    depth: int = Field(4, ge=1, le=64)
    """Layers; width (48 per layer), heads and ffn follow from it. 4: 2M weights, 12: 55M, 24: 400M (2k vocabulary)."""
    shape: ShapeConfig | None = None
    """The shape spelt out, instead of `depth`. With a checkpoint to continue from, both are its own."""
    tie_embeddings: bool = True
    """One matrix for input and output tokens: saves vocab_size x width weights. False pays from about 1B weights."""
    sequence_length: int = Field(256, ge=16)
    """Tokens per row, and the longest context that the model can be served with. Longer documents are cut."""
    max_tokens: int = Field(4_000_000, ge=1)
    """Training tokens in all (padding not counted); the corpus is repeated when it has fewer. About 20 per weight."""
    batch_size: int = Field(32, ge=1)
    """Rows per optimizer step, whatever fits in memory: x sequence_length = tokens per step."""
    micro_batch_size: int = Field(32, ge=1)
    """Rows computed at a time, a divisor of batch_size. Halve it when memory runs out; only rounding changes."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: orthogonalised steps for the matrices, AdamW for embeddings and norms; learns as much from half the tokens,
    and pays a fixed price per step. adamw: the plain one, and the better choice for a checkpoint that it trained."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak step size, of both optimizers. Larger models want less: 3e-3 at 2M weights, 6e-4 at 100M, 3e-4 at 1B."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After warm-up, fall along a cosine; or stay (warm-up, stable, decay) and fall in the last `decay_share`."""
    warmup_share: float = Field(0.03, ge=0, lt=1)
    """Share of the steps over which the rate rises from 0."""
    decay_share: float = Field(0.2, ge=0, le=1)
    """Share of the steps over which wsd falls."""
    final_share: float = Field(0.1, ge=0, le=1)
    """The last learning rate as a share of the peak."""
    weight_decay: float = Field(0.1, ge=0)
    """Pull of matrices towards 0 (x learning rate, per step); norms are left alone."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Longer gradients are shortened to this: an odd batch cannot throw the model."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of matrix products; weights stay fp32. auto: bf16 on a GPU that has it, else fp32. bf16 on a CPU pays with AMX
    and is many times slower without. fp16, with loss scaling, is for older GPUs."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile: about a sixth faster on a CPU, more on a GPU, after 20-60 s of compiling. auto: where there is
    a compiler and the run is long enough to earn that back."""
    save_dtype: Literal["bf16", "fp32"] = "fp32"
    """Width of the saved weights: bf16 halves the file, fp32 keeps every digit for the next stage."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; auto takes a GPU when there is one."""
    threads: int = Field(2, ge=1)
    """CPU threads. Another number changes the last bits of the result, so it is fixed, not what happens to be free."""
    seed: int = 0
    """Decides the first weights and the order of the rows."""
    prompt: str = Field("Once upon a time", min_length=1)
    """What the model continues, at 0, 10, 30 and 100% of training, for the report."""
    validation_tokens: int = Field(32_768, ge=1)
    """Tokens of the validation split that bits per byte is measured on, eleven times."""
    checkpoint_seconds: float = aside(120.0, ge=0)
    """Seconds between checkpoints: what a crash can cost. Each holds the weights two to three times."""
