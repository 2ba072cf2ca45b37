"""A Hugging Face folder -> one gguf that llama.cpp serves (the gguf library writes the bytes, the mapping is ours).

Llama, Mistral, Qwen2 and Qwen3 shapes. One tensor is in memory at a time, and the file is the same for the same input.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, GGUFWriter, TensorNameMap, get_tensor_name_map, quant_shape_to_byte_shape
from gguf.quants import quantize
from safetensors import safe_open

from containers.contract import StageError
from containers.model_folder import context_in
from containers.quantize.gguf_rope import RopeScaling
from containers.quantize.gguf_tokens import Vocabulary
from containers.quantize.gguf_types import FILE_TYPES, Mixture, Type, counted
from containers.quantize.k_quants import K_QUANTS, encode

SHAPES = {
    "LlamaForCausalLM": (MODEL_ARCH.LLAMA, True),
    "MistralForCausalLM": (MODEL_ARCH.LLAMA, True),
    "Qwen2ForCausalLM": (MODEL_ARCH.QWEN2, False),
    "Qwen3ForCausalLM": (MODEL_ARCH.QWEN3, False),
}
"""llama.cpp's name of a shape, and whether its rotary embedding pairs neighbours (Hugging Face pairs halves)."""


@dataclass(frozen=True)
class Checkpoint:
    """A model folder, read tensor by tensor."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        values: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return values

    @cached_property
    def shape(self) -> tuple[MODEL_ARCH, bool]:
        """llama.cpp's architecture, and whether query and key rows are reordered for it; raises StageError."""
        name = (self.config.get("architectures") or ["none"])[0]
        if name not in SHAPES:
            raise StageError(
                f"{self.folder}/config.json: architecture {name} has no gguf conversion here; "
                f"it is written for {', '.join(SHAPES)}"
            )
        return SHAPES[name]

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embedding (llama.cpp then reads the embedding for it)."""
        return bool(self.config.get("tie_word_embeddings"))

    @property
    def heads(self) -> tuple[int, int]:
        """Query heads and key heads."""
        queries = int(self.config["num_attention_heads"])
        return queries, int(self.config.get("num_key_value_heads") or queries)

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.heads[0])

    @property
    def context(self) -> int:
        """Tokens of context; no more than a sliding window, since llama.cpp attends to all of them."""
        return context_in(self.config)

    def names(self) -> list[tuple[str, str]]:
        """Return (gguf name, Hugging Face name) of every tensor to write, sorted; raises StageError for a stranger."""
        table: TensorNameMap = get_tensor_name_map(self.shape[0], int(self.config["num_hidden_layers"]))
        found = []
        for name in self.files:
            mapped = table.get_name(name, try_suffixes=(".weight", ".bias"))
            if name.endswith("rotary_emb.inv_freq") or (self.tied and mapped == "output.weight"):
                continue
            if mapped is None:
                raise StageError(f"{self.folder}: tensor {name} has no place in llama.cpp's {self.shape[0].name} shape")
            found.append((mapped, name))
        return sorted(found)

    @cached_property
    def files(self) -> dict[str, Path]:
        """The safetensors file of each tensor."""
        found = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                found.update(dict.fromkeys(tensors.keys(), file))
        return found

    def read(self, gguf_name: str, name: str) -> np.ndarray:
        """Return a tensor in fp32, query and key rows reordered where the shape needs it; raises StageError for NaN."""
        with safe_open(self.files[name], framework="pt") as tensors:
            values = tensors.get_tensor(name).to(torch.float32).numpy()
        if not np.isfinite(values).all():
            raise StageError(f"{self.files[name]}: tensor {name} holds NaN or infinity: training went wrong")
        return self.reordered(gguf_name, values)

    def reordered(self, gguf_name: str, values: np.ndarray) -> np.ndarray:
        """Return `values` with rows in llama.cpp's order: those of query and key, where the shape needs it."""
        heads = {"attn_q": self.heads[0], "attn_k": self.heads[1]}.get(gguf_name.split(".")[-2])
        return paired(values, heads) if heads and self.shape[1] else values

    def sizes(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, by its Hugging Face name."""
        with safe_open(self.files[name], framework="pt") as tensors:
            return tuple(tensors.get_slice(name).get_shape())


def paired(values: np.ndarray, heads: int) -> np.ndarray:
    """Return rows (heads x size, ...) with each head's two halves interleaved: a rotated pair becomes neighbours."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def write_gguf(source: Path, file: Path, format: str) -> None:
    """Convert the model folder `source` to `file` in a format of `gguf_types.WEIGHTS`; raises StageError."""
    checkpoint = Checkpoint(source)
    vocabulary = Vocabulary.of(source, int(checkpoint.config["vocab_size"]))
    rope = RopeScaling.of(checkpoint.config, checkpoint.head_size)
    writer = GGUFWriter(file, checkpoint.shape[0].name.lower())
    describe(writer, checkpoint, format)
    rope.describe(writer)
    vocabulary.describe(writer)
    planned = list(plan(checkpoint, format))
    if rope.factors is not None:
        writer.add_tensor_info("rope_freqs.weight", rope.factors.shape, rope.factors.dtype, rope.factors.nbytes)
    for gguf_name, _, shape, kind in planned:
        stored = quant_shape_to_byte_shape(shape, kind) if kind not in (Type.F32, Type.F16) else shape
        dtype = np.dtype({Type.F32: np.float32, Type.F16: np.float16}.get(kind, np.uint8))
        writer.add_tensor_info(gguf_name, stored, dtype, int(np.prod(stored)) * dtype.itemsize, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if rope.factors is not None:
        writer.write_tensor_data(rope.factors)
    for gguf_name, name, _, kind in planned:
        writer.write_tensor_data(encoded(checkpoint.read(gguf_name, name), kind, name))
    writer.close()


def describe(writer: GGUFWriter, checkpoint: Checkpoint, format: str) -> None:
    """Write the shape of the model."""
    config = checkpoint.config
    writer.add_file_type(FILE_TYPES[format])
    writer.add_quantization_version(2)
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(checkpoint.context)
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(checkpoint.heads[0])
    writer.add_head_count_kv(checkpoint.heads[1])
    writer.add_key_length(checkpoint.head_size)
    writer.add_value_length(checkpoint.head_size)
    writer.add_rope_dimension_count(checkpoint.head_size)
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))


def plan(checkpoint: Checkpoint, format: str) -> Iterator[tuple[str, str, tuple[int, ...], Type]]:
    """Yield (gguf name, Hugging Face name, shape, type) of each tensor."""
    mixture = mixture_of(checkpoint, format)
    for gguf_name, name in checkpoint.names():
        shape = checkpoint.sizes(name)
        yield gguf_name, name, shape, mixture.type_of(gguf_name, shape)


def stored(source: Path, format: str) -> dict[str, Any]:
    """Return `tensors`, how many are stored in each type, and `fallbacks`, how many of them fit no block they want."""
    checkpoint = Checkpoint(source)
    planned = list(plan(checkpoint, format))
    mixture = mixture_of(checkpoint, format)
    fallbacks = sum(len(shape) > 1 and kind != mixture.wanted(name) for name, _, shape, kind in planned)
    return {"tensors": counted(kind for *_, kind in planned), "fallbacks": fallbacks}


def mixture_of(checkpoint: Checkpoint, format: str) -> Mixture:
    """Return how the tensors of a checkpoint are stored in `format`."""
    return Mixture(format, int(checkpoint.config["num_hidden_layers"]), checkpoint.tied)


def encoded(values: np.ndarray, kind: Type, name: str) -> np.ndarray:
    """Return the bytes of a tensor; raises StageError where 16 bits cannot hold a value."""
    if kind == Type.F16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise StageError(f"tensor {name} holds values beyond the range of f16 (65504)")
    return encode(values, kind) if kind in K_QUANTS else np.ascontiguousarray(quantize(values, kind))
