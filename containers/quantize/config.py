"""What a person chooses for quantization: which formats are made, and which may ship."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from containers.contract import Config

Gguf = Literal["f16", "q8_0", "q5_k_m", "q4_k_m", "q4_0"]
Format = Literal[Gguf, "bf16", "nf4", "int8", "fp8", "w4a16", "gptq", "awq"]


class QuantizeConfig(Config):
    """What a person chooses."""

    formats: tuple[Format, ...] = ("f16", "q8_0", "q4_0", "nf4", "int8")
    """Made and measured. gguf for llama.cpp: f16 (16 bits per weight), q8_0 (8.5), q5_k_m (about 5.7), q4_k_m (about
    4.8), q4_0 (4.5, embeddings 8.5). The two mixtures want rows that divide by 256; others take a type with more bits.
    Hugging Face folders for transformers, vLLM, SGLang and TensorRT-LLM: bf16 (16), and with linear layers
    in nf4 (4.1) or int8 (8) by bitsandbytes, in 8-bit floats (fp8, which newer GPUs multiply as they are), or in 4-bit
    integers in groups (4.1 to 4.7), rounded by auto-round so that the run's own text comes out alike. These have three
    layouts that vLLM and SGLang load: w4a16 (compressed-tensors, as fp8), gptq, and awq, the one with zero points."""
    calibration_samples: int = Field(128, ge=1)
    """Pieces of training text, of `passage_tokens` each, that w4a16, gptq and awq are rounded for."""
    rounding_steps: int = Field(200, ge=0)
    """Steps in which w4a16, gptq and awq learn their rounding, layer by layer; 0 rounds to the nearest."""
    ship: Literal["smallest_within"] | Format = "smallest_within"
    """Tried first: the smallest gguf, or the one named (a folder is not served by llama.cpp: see `serve.engine`). The
    first within the bounds below ships; after it the larger ones of its kind are tried, f16 or bf16 last."""
    max_perplexity_increase: float = Field(0.05, ge=0)
    """Bound for shipping, relative to the 16-bit parent: 0.05 is 5%."""
    min_top1_agreement: float = Field(0.9, ge=0, le=1)
    """Bound for shipping: share of held-out positions where format and parent put the same token first."""
    max_accuracy_drop: float = Field(0.02, ge=0, le=1)
    """Bound for shipping: share of problems solved less than by the parent, where McNemar's test rules out chance."""
    max_problems: int = Field(100, ge=0)
    """Held-out problems that the parent and every format answer, drawn by `seed`; 0 leaves accuracy unmeasured."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest answer to a problem; a longer one is cut and judged as it stands."""
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
            raise ValueError(f"formats names no gguf ({', '.join(get_args(Gguf))}) for ship: smallest_within")
        if self.ship != "smallest_within" and self.ship not in self.formats:
            raise ValueError(f"ship is {self.ship!r}, which is not among the formats")
        return self
