"""The convert stage: a base + LoRA adapters -> the adapters in llama.cpp's format, to be served beside that base."""

from typing import Literal, Self

from pydantic import Field, model_validator

from containers.contract import Adapter, Config, Frozen, Model, Stage
from containers.unmerged import Unmerged


class ConvertConfig(Config):
    """How the answers are made that the bundle is held to; the conversion itself leaves nothing to choose."""

    max_nats: float = Field(0.05, gt=0)
    """Bound: mean |difference| of log-probabilities between the last model, base and adapters apart, and the merged
    model that was measured. Merged weights that are stored in 16 bits cost about 0.01."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of base and adapters in transformers; bf16 takes half the memory, and parity is then less exact."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU when there is one."""
    threads: int = Field(2, ge=1)
    """CPU threads."""


class ConvertInputs(Frozen):
    """What earlier stages made."""

    base: Model
    adapters: dict[str, Adapter]
    """Name of the model in the run that each adapter made -> the adapter."""
    models: dict[str, tuple[str, ...]]
    """Name of a model in the run -> the adapters that it adds up on the base, in the order of their training."""
    last: str
    """The model that the run ends with."""
    whole: Model
    """The same in one piece, as it was measured."""

    @model_validator(mode="after")
    def name_what_there_is(self) -> Self:
        """Refuse models of adapters that are not among these."""
        strange = sorted({name for chain in self.models.values() for name in chain} - set(self.adapters))
        if strange or self.last not in self.models or not all(self.models.values()):
            raise ValueError(f"models and last name adapters and models that are not here: {strange or self.last}")
        return self


class ConvertOutputs(Frozen):
    """What the stage makes."""

    adapters: Unmerged


STAGE = Stage("convert", ConvertConfig, ConvertInputs, ConvertOutputs, preload=("peft", "transformers", "gguf"))
