"""What a person chooses for quantization: which formats are made, and which may ship."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from containers.contract import Config

Gguf = Literal["f16", "q8_0", "q5_k_m", "q4_k_m", "q4_0"]
Folder = Literal["bf16", "nf4", "int8"]
Format = Literal[Gguf, Folder]


class QuantizeConfig(Config):
    """What a person chooses."""

    formats: tuple[Format, ...] = ("f16", "q8_0", "q4_0", "nf4", "int8")
    """Made and measured. gguf for llama.cpp: f16 (16 bits per weight), q8_0 (8.5), q5_k_m (about 5.7), q4_k_m (about
    4.8), q4_0 (4.5, embeddings 8.5). The two mixtures want rows that divide by 256; others take a type with more bits.
    Hugging Face folders for transformers, vLLM, SGLang and TensorRT-LLM: bf16 (16), and by bitsandbytes nf4 (4.1) and
    int8 (8) of linear layers."""
    chain: tuple[Format, ...] = ()
    """Tried for shipping in this order, each in the engine that serves it; the first within the bounds below ships.
    Empty: from the smallest gguf up. All gguf, or all folders (see `serve.engine`). f16 ends a chain of ggufs, bf16 one
    of folders, made if need be."""
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
        return not self.chain or self.chain[0] in get_args(Gguf)

    @property
    def last(self) -> Format:
        """The format that ends the chain: nothing else is nearer to the parent."""
        return "f16" if self.ships_gguf else "bf16"

    @model_validator(mode="after")
    def check_shipping(self) -> Self:
        """Refuse a rule that nothing can meet."""
        ggufs = set(get_args(Gguf))
        if not self.chain and not ggufs & set(self.formats):
            raise ValueError(
                f"formats names no gguf ({', '.join(get_args(Gguf))}), and chain names nothing else to ship"
            )
        if len({name in ggufs for name in self.chain}) > 1:
            raise ValueError("chain mixes ggufs and folders, and one engine serves them all: name one kind")
        strangers = set(self.chain) - set(self.formats) - {self.last}
        if strangers:
            raise ValueError(f"chain names {', '.join(sorted(strangers))}, which is not among the formats")
        return self
