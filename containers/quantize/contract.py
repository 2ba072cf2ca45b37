"""The quantize stage: a 16-bit model -> every format asked for, measured against its parent; one of them ships."""

from containers.contract import Config, Dataset, Frozen, Model, Quantized, Stage


class QuantizeConfig(Config):
    """What a person chooses."""


class QuantizeInputs(Frozen):
    """What earlier stages made."""

    model: Model
    corpus: Dataset | None = None
    """Held-out text that the formats are measured on."""
    instructions: Dataset | None = None


class QuantizeOutputs(Frozen):
    """What the stage makes: the format that ships, and all of them (the shipped one too)."""

    shipped: Quantized
    formats: dict[str, Quantized]


STAGE = Stage("quantize", QuantizeConfig, QuantizeInputs, QuantizeOutputs, preload=("transformers", "gguf"))
