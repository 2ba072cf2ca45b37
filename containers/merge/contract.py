"""The merge stage: base + adapter -> one model, proven to give the adapter's logits."""

from typing import Literal

from pydantic import Field

from containers.contract import Adapter, Config, Frozen, Model, Stage

PROMPTS = (
    "I can't log into my account. What should I do?",
    "If a train travels 60 km in 1 hour, how long will it take to travel 180 km?",
    "What is 2+2?",
    "Tell me a joke about work.",
)


class MergeConfig(Config):
    """How the proof is made; the merge itself leaves nothing to choose."""

    tolerance: float = Field(0.05, gt=0)
    """Largest allowed difference between a logit of the adapter and of the merged model, in standard deviations of
    the logits. Rounding to 16 bits costs about 0.01; a wrong base or scale costs 0.3 and more."""
    prompts: tuple[str, ...] = Field(PROMPTS, min_length=1)
    """Questions on which both are compared, at every token."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU when there is one."""
    threads: int = Field(2, ge=1)
    """CPU threads."""


class MergeInputs(Frozen):
    """What earlier stages made."""

    base: Model
    adapter: Adapter


class MergeOutputs(Frozen):
    """What the stage makes."""

    model: Model


STAGE = Stage("merge", MergeConfig, MergeInputs, MergeOutputs, preload=("peft", "transformers", "bitsandbytes"))
