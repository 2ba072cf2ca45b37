"""The weights that ship: a gguf or a Hugging Face folder, and what it says of itself."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gguf import GGUFReader

from containers.contract import Quantized, StageError
from containers.formats import identity_of
from containers.model_folder import check_weights, context_in, refuse_pickles
from containers.quantized_folder import AUTO_ROUND, method_of

LIBRARIES = {
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    **dict.fromkeys(AUTO_ROUND, ("auto-round", "auto-round-lib")),
}
"""How weights are quantized (config.json) -> the libraries that transformers reads them with."""


@dataclass(frozen=True)
class Weights:
    """Weights whose own metadata agree with the tokenizer files beside them."""

    quantized: Quantized
    layout: Literal["gguf", "safetensors"]
    architecture: str
    context: int
    """Tokens of context that the model was trained on."""
    engine: tuple[str, ...]
    """What has to be installed to serve them."""

    @classmethod
    def of(cls, quantized: Quantized) -> "Weights":
        """Return the weights of `quantized`; raises StageError for a mismatch, several ggufs, or a pickle."""
        check_identity(quantized)
        refuse_pickles(quantized.path)
        files = sorted(quantized.path.glob("*.gguf"))
        if len(files) > 1:
            raise StageError(f"{quantized.path} holds {len(files)} gguf files, and llama.cpp serves exactly one")
        return in_gguf(quantized, files[0]) if files else in_safetensors(quantized)

    @property
    def files(self) -> list[Path]:
        """The files of the weights alone, sorted."""
        return sorted(self.quantized.path.glob(f"*.{self.layout}"))

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(file.stat().st_size for file in self.files)


def in_gguf(quantized: Quantized, file: Path) -> Weights:
    """Return the weights of a gguf; raises StageError for stop ids that llama.cpp would not stop at."""
    reader = GGUFReader(file)
    architecture = str(value_of(reader, "general.architecture"))
    stops = {value_of(reader, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
    missing = set(quantized.stop_ids) - stops
    if missing:
        raise StageError(
            f"{file}: the model was trained to stop at token ids {sorted(missing)}, and the gguf names "
            "neither as its end of text nor of turn: convert it again"
        )
    context = int(value_of(reader, f"{architecture}.context_length"))
    return Weights(quantized, "gguf", architecture, context, ("xllamacpp",))


def in_safetensors(quantized: Quantized) -> Weights:
    """Return the weights of a Hugging Face folder; raises StageError where they are incomplete or pickled."""
    check_weights(quantized.path)
    config = json.loads((quantized.path / "config.json").read_text(encoding="utf-8"))
    engine = ("torch", "transformers", "accelerate", *LIBRARIES.get(method_of(quantized.path), ()))
    return Weights(quantized, "safetensors", config["architectures"][0], context_in(config), engine)


def check_identity(quantized: Quantized) -> None:
    """Refuse a tokenizer, template or stop ids other than the recorded ones."""
    for part, value in identity_of(quantized.path).items():
        if value != getattr(quantized, part):
            raise StageError(f"{quantized.path}: the {part} beside the weights is not the recorded one")


def value_of(reader: GGUFReader, key: str) -> Any:
    """Return one metadata value, None where there is none."""
    field = reader.get_field(key)
    return None if field is None else field.contents()
