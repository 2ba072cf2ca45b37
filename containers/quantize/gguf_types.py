"""How each tensor of a gguf is stored: the format's own type, more bits where llama.cpp spends them, a fallback.

q4_k_m and q5_k_m are mixtures: most matrices in 4 (5) bits, those that hurt most in 6. Which ones is llama.cpp's rule,
so that a file made here is what its users know by that name (but for its exception for 80-layer models).
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

Type = GGMLQuantizationType
WEIGHTS = {"f16": Type.F16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0, "q4_k_m": Type.Q4_K, "q5_k_m": Type.Q5_K}
"""Format -> the type of most matrices."""
FILE_TYPES = {
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
    "q5_k_m": LlamaFileType.MOSTLY_Q5_K_M,
}
FALLBACKS = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
"""llama.cpp's choice for rows that do not divide by 256: the next type of at least as many bits, in blocks of 32."""


@dataclass(frozen=True)
class Mixture:
    """The types of one file."""

    format: str
    num_layers: int
    tied: bool
    """Whether the embedding is the output layer too."""

    def type_of(self, name: str, shape: tuple[int, ...]) -> Type:
        """Return how the tensor `name` (llama.cpp's) is stored: vectors in f32, rows that fit no block in f16."""
        if len(shape) == 1:
            return Type.F32
        wanted = self.wanted(name)
        fitting = [kind for kind in (wanted, FALLBACKS.get(wanted)) if kind is not None and fits(shape, kind)]
        return fitting[0] if fitting else Type.F16

    def wanted(self, name: str) -> Type:
        """Return the type of a matrix whose rows divide into its blocks."""
        most = WEIGHTS[self.format]
        if self.format == "q4_0":
            # What every token passes through; llama.cpp gives the output 6 bits, and the embedding 4.
            return Type.Q8_0 if name in ("token_embd.weight", "output.weight") else most
        if self.format not in ("q4_k_m", "q5_k_m"):
            return most
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            return Type.Q6_K
        layer = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
        return Type.Q6_K if layer and self.is_sensitive(int(layer[1])) else most

    def is_sensitive(self, layer: int) -> bool:
        """Tell whether a layer's values and down projection get 6 bits: the first and last eighth, a third between."""
        eighth = self.num_layers // 8
        return layer < eighth or layer >= 7 * self.num_layers // 8 or (layer - eighth) % 3 == 2


def fits(shape: tuple[int, ...], kind: Type) -> bool:
    """Tell whether rows divide into the blocks of a type."""
    return shape[-1] % GGML_QUANT_SIZES[kind][0] == 0


def counted(kinds: Iterable[Type]) -> dict[str, int]:
    """Return how many tensors are stored in each type, the most frequent first."""
    return dict(Counter(kind.name for kind in kinds).most_common())
