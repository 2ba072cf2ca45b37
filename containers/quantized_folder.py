"""A Hugging Face folder as transformers loads it, however its weights are packed: to measure it and to serve it."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from containers.contract import StageError

AUTO_ROUND = ("gptq", "awq")
"""What transformers reads through auto-round, on the CPU (`quant_method` in config.json)."""


def method_of(folder: Path) -> str | None:
    """Return how the weights in `folder` are quantized (config.json), None for weights as they were trained."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    method: str | None = (config.get("quantization_config") or {}).get("quant_method")
    return method


def check_kernels(methods: set[str | None]) -> None:
    """Raise StageError where `methods` has one that nothing here can read."""
    asked = sorted(methods & set(AUTO_ROUND), key=str)
    if asked and not (find_spec("auto_round") and find_spec("auto_round_kernel")):
        raise StageError(
            f"{' and '.join(map(str, asked))}: transformers reads this layout with auto-round and auto-round-lib, "
            "which are not here (the second is made for Linux on x86-64): install them, or choose w4a16"
        )


def load_folder(folder: Path, device: Any) -> Any:
    """Return the causal language model in eval mode, in the precision it is stored in; only safetensors are read.

    GPTQ and AWQ come to lie on the CPU whatever `device` is: auto-round-lib has kernels for both there. Raises
    StageError where it is absent.
    """
    from transformers import AutoModelForCausalLM, AutoRoundConfig

    method = method_of(folder)
    check_kernels({method})
    # None, said aloud, would have transformers forget how the weights are quantized.
    how = {"quantization_config": AutoRoundConfig(backend="ark")} if method in AUTO_ROUND else {}
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        device_map={"": "cpu" if how else device},
        use_safetensors=True,
        local_files_only=True,
        **how,
    ).eval()
