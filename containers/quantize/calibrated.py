"""4-bit integers in groups, rounded so that the run's own text comes out alike, layer by layer.

The rounding is learnt by signed gradient descent (Cheng et al. 2023, arXiv:2309.05516) through auto-round, which writes
the folder in a layout that vLLM and SGLang load.
"""

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from containers.contract import Dataset, Model, StageError
from containers.formats import ChatFormat, rows_of
from containers.models import device_for, load_model
from containers.quantize.config import QuantizeConfig


@dataclass(frozen=True)
class Layout:
    """A way to store 4-bit integers."""

    export: str
    """Its name in auto-round."""
    symmetric: bool
    """Whether the integers lie around zero, or a zero point is stored with the scale of each group."""


LAYOUTS = {
    "w4a16": Layout("llm_compressor", symmetric=True),
    "gptq": Layout("auto_gptq", symmetric=True),
    "awq": Layout("auto_awq", symmetric=False),
}
"""Format -> its layout: compressed-tensors' "pack-quantized", AutoGPTQ's, AutoAWQ's "gemm".

AWQ's has zero points, without which vLLM's fast kernels for GPUs (Marlin) refuse it.
"""
GROUPS = (128, 64, 32)
"""Weights that share a scale: the largest that divides every row, as the engines' kernels want it."""
BATCH = 8


def calibration_of(dataset: Dataset, chat: ChatFormat, length: int, config: QuantizeConfig) -> list[list[int]]:
    """Return pieces of `length` tokens of training text (or conversations) end to end, rows drawn by `seed`.

    Held-out text stays held out. Raises StageError where there is not one piece.
    """
    rows = rows_of(dataset, "train")
    order = list(range(len(rows)))
    random.Random(config.seed).shuffle(order)
    ids: list[int] = []
    for number in order:
        if len(ids) >= length * config.calibration_samples:
            break
        row = rows.slice(number, 1).to_pylist()[0]
        ids += chat.encode(row["text"]) if dataset.role == "corpus" else chat.render(row["messages"]).ids
    pieces = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    if not pieces:
        raise StageError(
            f"{', '.join(LAYOUTS)} are rounded for training text, and there are only {len(ids)} tokens of it: give "
            "data.corpus more, or leave them out of quantize.formats"
        )
    return pieces[: config.calibration_samples]


@dataclass(frozen=True)
class Rounding:
    """What rounding is learnt from, and how; auto-round writes below `work` before the files are moved."""

    pieces: list[list[int]]
    config: QuantizeConfig
    work: Path

    def write(self, source: Model, folder: Path, format: str) -> None:
        """Write `source` to `folder` with linear layers in 4 bits; raises StageError for rows that cannot be packed."""
        from auto_round import AutoRound  # four seconds that only these formats need

        model = load_model(source, "bf16", None, torch.device("cpu"))
        # With the name of its source, auto-round would put the source's fp32 weights in the place of these.
        model.config._name_or_path = model.name_or_path = ""
        config, length, layout = self.config, len(self.pieces[0]), LAYOUTS[format]
        whole = torch.ones(1, length, dtype=torch.long)
        rows = [{"input_ids": torch.tensor([ids]), "attention_mask": whole} for ids in self.pieces]
        tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=True)
        with tempfile.TemporaryDirectory(dir=self.work) as made:
            AutoRound(
                model, tokenizer, scheme="W4A16", sym=layout.symmetric, group_size=group_of(model, source, format),
                iters=config.rounding_steps, seed=config.seed, dataset=rows, nsamples=len(rows), seqlen=length,
                batch_size=min(BATCH, len(rows)), device_map=device_for(config.device).type,
                enable_torch_compile=False,
            ).quantize_and_save(made, format=layout.export)  # fmt: skip
            for file in sorted(Path(made).rglob("*")):
                if file.name in ("config.json", "generation_config.json") or "safetensors" in file.name:
                    file.rename(folder / file.name)


def group_of(model: Any, source: Model, format: str) -> int:
    """Return the largest group that divides the rows of every linear layer that is quantized; raises StageError."""
    widths = {m.in_features for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    fitting = [group for group in GROUPS if all(width % group == 0 for width in widths)]
    if not fitting:
        raise StageError(f"{source.path}: {format} wants rows that divide by {GROUPS[-1]}, and some have {min(widths)}")
    return fitting[0]
