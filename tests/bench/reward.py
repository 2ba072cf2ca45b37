"""A reward model against a stock TRL script: same base, pairs, precision, threads and pairs per optimizer step.

    python -m tests.bench.reward

The stock side is the twenty lines that everybody writes: RewardTrainer as it comes (padded, recomputed activations),
but in fp32 where the CPU has no bf16 instructions. Seconds are those of the median optimizer step. The last loss of
both is measured alike, on held-out pairs, in fp32; their heads are drawn from different seeds.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from datasets import Dataset as Rows
from transformers import AutoTokenizer
from trl.trainer.reward_config import RewardConfig as TRLConfig
from trl.trainer.reward_trainer import RewardTrainer

from containers.contract import Dataset, Model, RewardModel
from containers.formats import ChatFormat, identity_of
from containers.models import copy_tokenizer, has_bf16_instructions
from containers.out import Out
from containers.pairs.rows import read_pairs
from containers.reward.contract import RewardConfig, RewardInputs
from containers.reward.main import run
from containers.reward.trainer import scores_of
from containers.reward_model import load_reward_model
from tests.bench.dpo import BATCH, STEPS, judgements
from tests.bench.sft import SHAPES, THREADS, Clock, seconds_per_step
from tests.by_hand import events
from tests.stages.toy_chat import write_model
from tests.stages.toy_pairs import write_pairs

RATE = 1e-4


def stock(base: Model, rows: list[Any], folder: Path) -> tuple[Any, float]:
    """The 20-line script that everybody writes; returns (model, seconds per step)."""
    torch.set_num_threads(THREADS)
    clock = Clock()
    trainer = RewardTrainer(
        model=str(base.path),
        args=TRLConfig(
            output_dir=str(folder), per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=RATE,
            bf16=has_bf16_instructions(), save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=Rows.from_list([{n: row[n] for n in ("prompt", "chosen", "rejected")} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(base.path),
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    return trainer.model, seconds_per_step(clock.ends)


def ours(base: Model, data: Dataset, folder: Path) -> tuple[RewardModel, float]:
    """The stage itself; returns (model, seconds per step)."""
    config = RewardConfig(
        learning_rate=RATE, center_rewards=0, batch_size=BATCH, micro_batch_size=BATCH, max_steps=STEPS,
        max_length=512, threads=THREADS, checkpoint_every=10**6, logging_steps=1, validation_rows=0,
    )  # fmt: skip
    made = run(config, RewardInputs(base=base, preferences=data), Out(folder)).reward
    ends = [e["time"] for e in events(folder) if e["event"] == "metrics" and "loss" in e["values"]]
    return made, seconds_per_step(ends)


def main() -> None:
    """Print both sides and their ratio."""
    rows, held_out = judgements()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        texts = [m["content"] for row in rows for side in ("prompt", "chosen", "rejected") for m in row[side]]
        base = write_model(work / "base", texts=texts, **SHAPES["12m"])
        data = write_pairs(work / "data", rows, held_out)
        pairs = read_pairs(data, "test", ChatFormat.load(base.path), 512).kept
        made, seconds = ours(base, data, work / "ours")
        trained, stock_seconds = stock(base, rows, work / "stock")
        trained.save_pretrained(work / "trained")
        copy_tokenizer(base.path, work / "trained")
        losses = []
        for model in (made, RewardModel.of(work / "trained", **identity_of(work / "trained"))):
            margins = scores_of(load_reward_model(model, "fp32"), pairs, 8192) @ np.array([1, -1])
            losses.append(float(np.logaddexp(0, -margins).mean()))
    print(
        f"reward 12m: seconds_per_step {seconds:.3f}, stock_seconds_per_step {stock_seconds:.3f}, "
        f"ratio {stock_seconds / seconds:.2f}, held_out_loss {losses[0]:.4f}, stock_held_out_loss {losses[1]:.4f}, "
        f"{BATCH} pairs a step",
        flush=True,
    )


if __name__ == "__main__":
    main()
