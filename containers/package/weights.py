"""The weights that ship: the one gguf of a quantized model, and what it says of itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from containers.contract import Quantized, StageError
from containers.formats import identity_of


@dataclass(frozen=True)
class Weights:
    """A gguf whose own metadata agree with the tokenizer files beside it."""

    quantized: Quantized
    file: Path
    architecture: str
    context: int
    """Tokens of context that the model was trained on."""

    @classmethod
    def of(cls, quantized: Quantized) -> "Weights":
        """Return the weights of `quantized`; raises StageError for another format or a mismatch."""
        files = sorted(quantized.path.glob("*.gguf"))
        if len(files) != 1:
            raise StageError(
                f"the {quantized.format} format holds {len(files)} gguf files, and the engine in a bundle (llama.cpp) "
                "serves exactly one: choose a gguf format (f16, q8_0, q4_k_m, ...) in the recipe's `quantize`"
            )
        reader = GGUFReader(files[0])
        architecture = str(value_of(reader, "general.architecture"))
        found = cls(quantized, files[0], architecture, int(value_of(reader, f"{architecture}.context_length")))
        found.check(reader)
        return found

    def check(self, reader: GGUFReader) -> None:
        """Refuse a tokenizer that is not the recorded one, and stop ids that llama.cpp would not stop at."""
        beside = identity_of(self.quantized.path)
        for part, value in beside.items():
            if value != getattr(self.quantized, part):
                raise StageError(f"{self.quantized.path}: the {part} beside the weights is not the recorded one")
        stops = {value_of(reader, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
        missing = set(self.quantized.stop_ids) - stops
        if missing:
            raise StageError(
                f"{self.file}: the model was trained to stop at token ids {sorted(missing)}, and the gguf names "
                "neither as its end of text nor of turn: convert it again"
            )


def value_of(reader: GGUFReader, key: str) -> Any:
    """Return one metadata value, None where there is none."""
    field = reader.get_field(key)
    return None if field is None else field.contents()
