"""SFT against a stock TRL script: same model, conversations, precision, threads and examples per optimizer step.

    python -m tests.bench.sft [tiny|12m ...] [full|lora|qlora ...]

The stock side is the twenty lines that everybody writes: SFTTrainer as it comes (padded, recomputed activations), but
in fp32 where the CPU has no bf16 instructions (as it comes, it would be some twenty times slower there). Trained
tokens per second are those of the median optimizer step. The last loss of both is measured alike, on held-out
conversations.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset as Rows
from peft import LoraConfig
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl.trainer.sft_config import SFTConfig as TRLConfig
from trl.trainer.sft_trainer import SFTTrainer

from containers.contract import Dataset, Model
from containers.data.worlds import generate
from containers.formats import ChatFormat
from containers.models import has_bf16_instructions
from containers.out import Out
from containers.sft.contract import STAGE, SFTInputs
from containers.sft.lessons import read_lessons
from containers.sft.main import run
from tests.stages.toy_chat import write_chats, write_model

SHAPES = {
    "tiny": {"vocab_size": 2048, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4,
             "num_attention_heads": 6, "num_key_value_heads": 3, "max_position_embeddings": 1024},
    "12m": {"vocab_size": 4096, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6,
            "num_attention_heads": 6, "num_key_value_heads": 6, "max_position_embeddings": 1024},
}  # fmt: skip
WORLDS = ("desk", "travel", "shop", "facts", "harm", "talk")
BATCH, THREADS, WARM = 32, 2, 2
STEPS = {"tiny": 16, "12m": 9}
RATE = 1e-3


def conversations() -> tuple[list[Any], list[Any]]:
    """Return (train, validation) conversations of the builtin worlds, a fixed mixture."""
    split: dict[str, list[Any]] = {"train": [], "validation": []}
    for world in WORLDS:
        for row in generate(world, "instructions", 0):
            if row["split"] in split and len(split[row["split"]]) < 2000:
                split[row["split"]].append(row["messages"])
    order = torch.randperm(len(split["train"]), generator=torch.Generator().manual_seed(0))
    return [split["train"][i] for i in order], split["validation"][:64]


class Clock(TrainerCallback):
    """Notes when each optimizer step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.time())


def seconds_per_step(ends: list[float]) -> float:
    """Return the median time from the end of one step to the end of the next, the first ones left out."""
    return statistics.median(after - before for before, after in pairwise(ends[WARM - 1 :]))


def stock(base: Model, train: list[Any], steps: int, method: str, folder: Path) -> tuple[Any, float]:
    """The 20-line script that everybody writes; returns (model, seconds per step)."""
    torch.set_num_threads(THREADS)
    rows = Rows.from_list([{"prompt": chat[:-1], "completion": chat[-1:]} for chat in train])
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(
        base.path, quantization_config=four_bits if method == "qlora" else None
    )
    clock = Clock()
    trainer = SFTTrainer(
        model=model,
        args=TRLConfig(
            output_dir=str(folder), per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=RATE,
            bf16=has_bf16_instructions(), save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(base.path),
        peft_config=None if method == "full" else LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32,
                                                             target_modules="all-linear"),
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    return trainer.model, seconds_per_step(clock.ends)


def ours(base: Model, data: Dataset, steps: int, method: str, folder: Path) -> tuple[float, float]:
    """The stage itself; returns (validation loss, seconds per step)."""
    config = TypeAdapter(STAGE.config).validate_python({
        "method": method, "learning_rate": RATE, "schedule": "linear", "batch_size": BATCH, "max_steps": steps,
        "threads": THREADS, "checkpoint_every": 10**6, "micro_batch_size": BATCH, "logging_steps": 1,
        **({} if method == "full" else {"r": 16, "alpha": 32, "dropout": 0}),
    })  # fmt: skip
    out = Out(folder)
    run(config, SFTInputs(base=base, instructions=data), out)
    points = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    ends = [p["time"] for p in points if p["event"] == "metrics" and "loss" in p["values"]]
    return out.recorded["validation_loss"], seconds_per_step(ends)


def measure(shape: str, method: str) -> dict[str, float]:
    """Return trained tokens per second and validation loss of both, and the ratio."""
    train, validation = conversations()
    steps = STEPS[shape]
    train = train[: steps * BATCH]
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        texts = [m["content"] for chat in train for m in chat]
        base = write_model(work / "base", texts=texts, **SHAPES[shape])
        data = write_chats(work / "data", train, validation)
        chat = ChatFormat.load(base.path)
        lessons = read_lessons(data, "train", chat, 1024).kept
        trained = sum(sum(x.trained) for x in lessons) / steps
        loss, seconds = ours(base, data, steps, method, work / "ours")
        model, stock_seconds = stock(base, train, steps, method, work / "stock")
        held_out = read_lessons(data, "validation", chat, 1024).kept
        stock_loss = plain_loss(model, held_out)
    return {
        "trained_tokens_per_second": trained / seconds, "stock_trained_tokens_per_second": trained / stock_seconds,
        "ratio": stock_seconds / seconds, "validation_loss": loss, "stock_validation_loss": stock_loss,
        "tokens_per_example": sum(len(x.ids) for x in lessons) / len(lessons),
    }  # fmt: skip


@torch.no_grad()
def plain_loss(model: Any, lessons: list[Any]) -> float:
    """Return the mean loss per trained token, one conversation at a time, by the model's own forward."""
    model.eval()
    total, count = 0.0, 0
    for lesson in lessons:
        labels = torch.tensor([[i if t else -100 for i, t in zip(lesson.ids, lesson.trained, strict=True)]])
        trained = int((labels[:, 1:] >= 0).sum())
        total += float(model(input_ids=torch.tensor([lesson.ids]), labels=labels).loss) * trained
        count += trained
    return total / count


if __name__ == "__main__":
    named = sys.argv[1:]
    for method in [m for m in named if m not in SHAPES] or ["full"]:
        for shape in [s for s in named if s in SHAPES] or list(SHAPES):
            figures = measure(shape, method)
            print(
                f"sft {shape} {method}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()),
                flush=True,
            )
