"""A PEFT adapter -> a LoRA gguf that llama.cpp adds to its base while it computes.

Per matrix W of the base llama.cpp computes W x + (alpha / r) B A x, with A and B stored as `<W>.lora_a` (r, columns)
and `<W>.lora_b` (rows, r), in fp32. Where the base's query and key rows are reordered for the rotary embedding, B's
are too: B A then has the rows of W.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFType, GGUFWriter, Keys
from safetensors import safe_open

from containers.contract import StageError
from containers.quantize.gguf_writer import Checkpoint

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
FACTORS = {"lora_A": "lora_a", "lora_B": "lora_b"}
EXTRAS = (
    "use_dora", "use_rslora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern",
    "layer_replication", "trainable_token_indices", "alora_invocation_tokens", "use_qalora", "target_parameters",
    "use_bdlora", "arrow_config", "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
"""Settings of PEFT that make of an adapter more than a product of two matrices."""


def write_adapter(base: Path, adapter: Path, file: Path) -> None:
    """Convert the PEFT folder `adapter` of the model folder `base` to `file`; raises StageError where it cannot be."""
    checkpoint, settings = Checkpoint(base), plain_settings(adapter)
    writer = GGUFWriter(file, checkpoint.shape[0].name.lower())
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(settings["lora_alpha"]))
    for name, values in factors_of(checkpoint, adapter, int(settings["r"])):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def plain_settings(adapter: Path) -> dict[str, Any]:
    """Return adapter_config.json; raises StageError for what is no product of two matrices, scaled by alpha / r."""
    settings: dict[str, Any] = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    wrong = [name for name in EXTRAS if settings.get(name)]
    wrong += [name for name, plain in (("peft_type", "LORA"), ("bias", "none")) if settings.get(name) != plain]
    if wrong:
        raise StageError(
            f"{adapter / CONFIG}: {wrong[0]} is {settings.get(wrong[0])!r}, which llama.cpp cannot add to a base: "
            "merge this adapter (`package.adapters=merged`)"
        )
    return settings


def factors_of(checkpoint: Checkpoint, adapter: Path, rank: int) -> list[tuple[str, np.ndarray]]:
    """Return (gguf name, values) of every A and B, sorted; raises StageError for one that fits no matrix of the base.

    A has the shape (rank, columns), B (rows, rank).
    """
    places = {name: gguf_name for gguf_name, name in checkpoint.names()}
    found: dict[str, np.ndarray] = {}
    with safe_open(adapter / WEIGHTS, framework="pt") as tensors:
        for key in sorted(tensors.keys()):
            module, factor, _ = key.removeprefix(PREFIX).rsplit(".", 2)
            place = places.get(f"{module}.weight")
            if place is None or factor not in FACTORS:
                raise StageError(f"{adapter / WEIGHTS}: {key} belongs to no matrix of the base {checkpoint.folder}")
            values = tensors.get_tensor(key).to(torch.float32).numpy()
            rows, columns = checkpoint.sizes(f"{module}.weight")
            if values.shape != ((rank, columns) if factor == "lora_A" else (rows, rank)):
                raise StageError(f"{adapter / WEIGHTS}: {key} is {values.shape}, and the base's matrix {rows, columns}")
            if not np.isfinite(values).all():
                raise StageError(f"{adapter / WEIGHTS}: {key} holds NaN or infinity: training went wrong")
            ordered = checkpoint.reordered(place, values) if factor == "lora_B" else values
            found[f"{place}.{FACTORS[factor]}"] = np.ascontiguousarray(ordered)
    return sorted(found.items())
