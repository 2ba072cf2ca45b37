"""What a person chooses for every stage that lets a model answer prompts, and what an answer is. No torch."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from containers.contract import Config


class SpeakingConfig(Config):
    """What critique and candidates share: which prompts, how long an answer, the machine."""

    max_prompts: int | None = Field(None, ge=1)
    """Prompts in all, drawn by seed from every split in proportion to its size; absent: every prompt."""
    max_tokens: int = Field(256, ge=1)
    """Longest answer; one that is cut off there is not used."""
    batch_size: int = Field(32, ge=1)
    """Answers made at once: memory and speed; on a CPU the last bits depend on it too."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of weights and arithmetic; what the device cannot do means fp32 (CPU) or fp16 (GPU)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU when there is one."""
    threads: int = Field(2, ge=1)
    """CPU threads; the bits of the result depend on it."""
    seed: int = 0
    """Of the prompts that are drawn, and of everything else that is drawn for them."""


@dataclass(frozen=True)
class Reply:
    """One answer."""

    text: str
    finished: bool
    """Whether it came to its own end; else it was cut off at the most tokens allowed."""
