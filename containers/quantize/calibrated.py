"""w4a16: 4-bit integers in groups, rounded so that the run's own text comes out alike, layer by layer.

The rounding is learnt by signed gradient descent (Cheng et al. 2023, arXiv:2309.05516) through auto-round; the folder
has the layout of compressed-tensors ("pack-quantized"), which transformers, vLLM and SGLang load.
"""

import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from containers.contract import Dataset, Model, StageError
from containers.formats import ChatFormat, rows_of
from containers.models import device_for, load_model
from containers.quantize.config import QuantizeConfig

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
            f"w4a16 is rounded for training text, and there are only {len(ids)} tokens of it: give data.corpus more, "
            "or leave w4a16 out of quantize.formats"
        )
    return pieces[: config.calibration_samples]


def write_w4a16(source: Model, folder: Path, pieces: list[list[int]], config: QuantizeConfig, work: Path) -> None:
    """Write `source` to `folder` with linear layers in 4 bits; raises StageError for rows that do not divide by 32."""
    from auto_round import AutoRound  # four seconds that only this format needs

    model = load_model(source, "bf16", None, torch.device("cpu"))
    # With the name of its source, auto-round would put the source's fp32 weights in the place of these.
    model.config._name_or_path = model.name_or_path = ""
    group = group_of(model, source)
    whole = torch.ones(1, len(pieces[0]), dtype=torch.long)
    rows = [{"input_ids": torch.tensor([ids]), "attention_mask": whole} for ids in pieces]
    tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=True)
    with tempfile.TemporaryDirectory(dir=work) as made:
        AutoRound(
            model, tokenizer, scheme="W4A16", group_size=group, iters=config.rounding_steps, seed=config.seed,
            dataset=rows, nsamples=len(rows), seqlen=len(pieces[0]), batch_size=min(BATCH, len(rows)),
            device_map=device_for(config.device).type, enable_torch_compile=False,
        ).quantize_and_save(made, format="llm_compressor")  # fmt: skip
        for file in sorted(Path(made).rglob("*")):
            if file.name in ("config.json", "generation_config.json") or "safetensors" in file.name:
                file.rename(folder / file.name)


def group_of(model: Any, source: Model) -> int:
    """Return the largest group that divides the rows of every linear layer that is quantized; raises StageError."""
    widths = {m.in_features for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    fitting = [group for group in GROUPS if all(width % group == 0 for width in widths)]
    if not fitting:
        raise StageError(f"{source.path}: w4a16 wants rows that divide by {GROUPS[-1]}, and some have {min(widths)}")
    return fitting[0]
