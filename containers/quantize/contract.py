"""The quantize stage: a 16-bit model -> every format asked for, measured against its parent; one of them ships."""

from containers.contract import Dataset, Frozen, Model, Quantized, Stage
from containers.quantize.config import QuantizeConfig

__all__ = ["STAGE", "QuantizeConfig", "QuantizeInputs", "QuantizeOutputs"]


class QuantizeInputs(Frozen):
    """What earlier stages made."""

    model: Model
    corpus: Dataset
    """Its held-out text (or conversations) is what the formats are measured on."""
    problems: Dataset | None = None
    """Its held-out problems are answered by the parent and every format."""


class QuantizeOutputs(Frozen):
    """What the stage makes: the format that ships, and all of them (the shipped one too)."""

    shipped: Quantized
    formats: dict[str, Quantized]


STAGE = Stage(
    "quantize",
    QuantizeConfig,
    QuantizeInputs,
    QuantizeOutputs,
    preload=("transformers", "bitsandbytes", "gguf", "xllamacpp"),
)
