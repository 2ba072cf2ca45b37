"""Formats that are Hugging Face folders: bf16, nf4 and int8, written before the first forward pass, read back after.

The order matters. On a CPU with AVX512-BF16, bitsandbytes packs weights anew in the first forward pass; what was saved
after it would be another format.
"""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from containers.contract import Model
from containers.generation import Job, answer_all
from containers.models import DTYPES, load_model, working_precision
from containers.quantize.footprint import TIMED_TOKENS, WARM_UP_TOKENS

SETTINGS: dict[str, dict[str, Any]] = {
    "bf16": {},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
}


def write_folder(source: Model, folder: Path, format: str, device: torch.device) -> None:
    """Write `source` with its linear layers in `format` (bf16, nf4 or int8), the rest in 16 bit."""
    precision, _ = working_precision("bf16", device)
    compute = {"bnb_4bit_compute_dtype": DTYPES[precision]} if format == "nf4" else {}
    settings = SETTINGS[format] | compute
    model = load_model(source, "bf16", BitsAndBytesConfig(**settings) if settings else None, device)
    model.config._name_or_path = ""
    model.save_pretrained(folder)


def footprint_of(model: Any) -> dict[str, float]:
    """Return `memory_bytes` (weights and buffers; on a GPU its peak) and `tokens_per_second` (one stream, greedy)."""
    job = Job([0], TIMED_TOKENS, lambda made: False)
    answer_all(model, [Job([0], WARM_UP_TOKENS, job.ended)], 1, lambda done: None)
    began = time.monotonic()
    answer_all(model, [job], 1, lambda done: None)
    seconds = time.monotonic() - began
    on_gpu = model.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else model.get_memory_footprint()
    return {"memory_bytes": memory, "tokens_per_second": round(TIMED_TOKENS / seconds, 1)}
