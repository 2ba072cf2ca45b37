"""The quantize stage: a 16-bit model -> every format asked for, measured against its parent; one of them ships."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from containers.contract import Config, Dataset, Frozen, Model, Quantized, Stage

Gguf = Literal["f16", "q8_0", "q4_0"]
Format = Literal["f16", "q8_0", "q4_0", "bf16", "nf4", "int8"]


class QuantizeConfig(Config):
    """What a person chooses."""

    formats: tuple[Format, ...] = ("f16", "q8_0", "q4_0", "nf4", "int8")
    """Made and measured. gguf for llama.cpp: f16 (16 bits per weight), q8_0 (8.5), q4_0 (4.5, embeddings 8.5).
    Hugging Face folders for transformers, vLLM, SGLang and TensorRT-LLM: bf16 (16), and by bitsandbytes nf4 (4.1) and
    int8 (8) of linear layers."""
    ship: Literal["smallest_within"] | Format = "smallest_within"
    """The smallest gguf within both bounds below, f16 where none is; or the one named, whatever it measures (a
    folder is not served by llama.cpp: see `serve.engine`)."""
    max_perplexity_increase: float = Field(0.05, ge=0)
    """Bound for shipping, relative to the 16-bit parent: 0.05 is 5%."""
    min_top1_agreement: float = Field(0.9, ge=0, le=1)
    """Bound for shipping: share of held-out positions where format and parent put the same token first."""
    max_tokens: int = Field(4096, ge=64)
    """Held-out tokens that the formats are measured on, drawn by `seed`; llama.cpp reads them one by one."""
    passage_tokens: int = Field(256, ge=8)
    """Longest passage; each is read alone, from its first token."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the parent and of bitsandbytes formats; bf16 takes half the memory and blurs top-1 agreement."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the parent and bitsandbytes formats run; auto: the GPU when there is one."""
    threads: int = Field(2, ge=1)
    """CPU threads."""
    seed: int = 0
    """Of the sample of held-out text."""

    @property
    def ships_gguf(self) -> bool:
        """Whether what ships is for llama.cpp, and not a Hugging Face folder."""
        return self.ship == "smallest_within" or self.ship in get_args(Gguf)

    @model_validator(mode="after")
    def check_shipping(self) -> Self:
        """Refuse a rule that nothing can meet."""
        if self.ship == "smallest_within" and not set(self.formats) & set(get_args(Gguf)):
            raise ValueError("formats names no gguf (f16, q8_0, q4_0), which ship: smallest_within picks from")
        if self.ship != "smallest_within" and self.ship not in self.formats:
            raise ValueError(f"ship is {self.ship!r}, which is not among the formats")
        return self


class QuantizeInputs(Frozen):
    """What earlier stages made."""

    model: Model
    corpus: Dataset
    """Its held-out text (or conversations) is what the formats are measured on."""


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
