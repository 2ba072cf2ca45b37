"""The package stage: quantized model + scores -> a Bento with model, service, API, page, card and provenance."""

from typing import Any, Literal

from pydantic import Field

from containers.contract import Bundle, Config, Frozen, Quantized, Scores, Stage, aside
from containers.unmerged import Unmerged


class PackageConfig(Config):
    """What the bundle says of itself."""

    name: str = Field("assistant", pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    """The model's name: `model` in a request, and the Bento's name. Lower-case letters, digits, `.`, `_`, `-`."""
    description: str = "A language model trained with Slipway."
    """What the model is and what it is for: opens the model card and the chat page."""
    limits: str = "It knows what its training data say, and is wrong with confidence about the rest."
    """What it should not be used for; a section of the model card."""
    examples: tuple[str, ...] = ()
    """Questions that the chat page offers to begin with."""
    adapters: Literal["merged", "unmerged"] = "merged"
    """merged: one whole model. unmerged (llama.cpp, steps of method lora): the base is quantized once, and the adapters
    of sft and align lie beside it. `model` in a request is then `name` for the run's last model, `name-base` for the
    base, and `name-chat`, `name-dpo`, ... for the others that adapters make of it."""
    prove_parity: bool = True
    """Refuse a bundle that does not answer as its 16-bit model does in transformers: equal token ids of the same chats,
    equal greedy answers (16-bit formats), and log-probabilities within the bounds below."""
    max_parity_nats: float = Field(0.5, ge=0)
    """Bound of a quantized format: mean |difference| of the log-probabilities of the 16-bit model's own answers."""
    max_parity_nats_16bit: float = Field(0.02, ge=0)
    """The same of a 16-bit format, where only the order of sums differs, and in transformers their precision."""
    licences: dict[str, str] = Field(default_factory=dict)
    """Part (base model, data source) -> licence; the flow fills in what the recipe and the cards of its sources say."""
    provenance: dict[str, Any] = aside({})
    """Recipe, git commit and the run's stages with their digests, handed in by the flow; written to provenance.json."""


class PackageInputs(Frozen):
    """What earlier stages made."""

    quantized: Quantized
    adapters: Unmerged | None = None
    """Of the model that was quantized."""
    scores: tuple[Scores, ...] = ()


class PackageOutputs(Frozen):
    """What the stage makes."""

    bundle: Bundle


STAGE = Stage("package", PackageConfig, PackageInputs, PackageOutputs, preload=("bentoml",))
