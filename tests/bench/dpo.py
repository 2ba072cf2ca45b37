"""DPO against a stock TRL script: same policy, pairs, precision, threads and pairs per optimizer step.

    python -m tests.bench.dpo

The stock side is the twenty lines that everybody writes: DPOTrainer as it comes (padded, recomputed activations, a
frozen copy that scores every batch), but in fp32 where the CPU has no bf16 instructions. Seconds are those of the
median optimizer step; what ours spends on the reference before the first step is counted in, a step's share to each.
The last loss of both is measured alike, on held-out pairs, in fp32.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from datasets import Dataset as Rows
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig as TRLConfig
from trl.trainer.dpo_trainer import DPOTrainer

from containers.contract import Dataset, Model
from containers.data.worlds import generate
from containers.dpo.contract import DPOConfig, DPOInputs
from containers.dpo.main import run
from containers.dpo.reference import log_probs_of
from containers.formats import ChatFormat
from containers.models import has_bf16_instructions, load_model
from containers.out import Out
from containers.pairs.rows import read_pairs
from containers.policy import packed
from tests.bench.sft import SHAPES, THREADS, Clock, seconds_per_step
from tests.by_hand import events
from tests.stages.toy_chat import write_model
from tests.stages.toy_pairs import write_pairs

BATCH, STEPS, RATE, BETA = 16, 7, 1e-4, 0.1


def judgements() -> tuple[list[Any], list[Any]]:
    """Return (train, held-out) preference rows of the builtin worlds, mixed."""
    rows = [row for world in ("desk", "harm") for row in generate(world, "preferences", 0)]
    names = ("prompt", "chosen", "rejected", "id", "task")
    kept = {s: [{n: row[n] for n in names} for row in rows if row["split"] == s] for s in ("train", "test")}
    order = torch.randperm(len(kept["train"]), generator=torch.Generator().manual_seed(0))
    return [kept["train"][i] for i in order][: STEPS * BATCH], kept["test"][:64]


def stock(policy: Model, rows: list[Any], folder: Path) -> tuple[Any, float]:
    """The 20-line script that everybody writes; returns (model, seconds per step)."""
    torch.set_num_threads(THREADS)
    clock = Clock()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy.path),
        args=TRLConfig(
            output_dir=str(folder), per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=RATE, beta=BETA,
            bf16=has_bf16_instructions(), save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=Rows.from_list([{n: row[n] for n in ("prompt", "chosen", "rejected")} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(policy.path),
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    return trainer.model, seconds_per_step(clock.ends)


def ours(policy: Model, data: Dataset, folder: Path) -> tuple[Model, float]:
    """The stage itself; returns (model, seconds per step with the reference's share)."""
    config = DPOConfig(
        learning_rate=RATE, beta=BETA, batch_size=BATCH, micro_batch_size=BATCH, max_steps=STEPS, max_length=512,
        threads=THREADS, checkpoint_every=10**6, logging_steps=1, validation_rows=0,
    )  # fmt: skip
    out = Out(folder)
    made = run(config, DPOInputs(policy=policy, preferences=data), out).model
    ends = [e["time"] for e in events(folder) if e["event"] == "metrics" and "loss" in e["values"]]
    assert isinstance(made, Model)
    return made, seconds_per_step(ends) + out.recorded["reference_seconds"] / STEPS


def main() -> None:
    """Print both sides and their ratio."""
    rows, held_out = judgements()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        texts = [m["content"] for row in rows for side in ("prompt", "chosen", "rejected") for m in row[side]]
        policy = write_model(work / "policy", texts=texts, **SHAPES["12m"])
        data = write_pairs(work / "data", rows, held_out)
        pairs = read_pairs(data, "test", ChatFormat.load(policy.path), 512).kept
        made, seconds = ours(policy, data, work / "ours")
        trained, stock_seconds = stock(policy, rows, work / "stock")
        trained.save_pretrained(work / "trained")
        reference = log_probs_of(packed(load_model(policy, "fp32")), pairs, 8192)
        losses = []
        for folder in (made.path, work / "trained"):
            plain = AutoModelForCausalLM.from_pretrained(folder)
            margins = BETA * (log_probs_of(packed(plain), pairs, 8192) - reference) @ np.array([1, -1])
            losses.append(float(np.logaddexp(0, -margins).mean()))
    print(
        f"dpo 12m: seconds_per_step {seconds:.3f}, stock_seconds_per_step {stock_seconds:.3f}, "
        f"ratio {stock_seconds / seconds:.2f}, held_out_loss {losses[0]:.4f}, stock_held_out_loss {losses[1]:.4f}, "
        f"{BATCH} pairs a step",
        flush=True,
    )


if __name__ == "__main__":
    main()
