"""GRPO against a stock TRL script, one after the other: python -m tests.bench.grpo (tests.bench.rloo shares the sides).

Same model, prompts, reward, precision, threads and answers per step (8 x 64 tokens: one prompt, eight answers). The
stock side is in fp32 where the CPU has no bf16 instructions. Seconds are those of the median optimizer step.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset as Rows
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig as TRLConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from containers.contract import Model
from containers.data.worlds import generate
from containers.grpo.config import GRPOConfig
from containers.grpo.trainer import GroupTrainer
from containers.online.reporter import OnlineReporter, train
from containers.out import Out
from containers.policy import Policy
from tests.bench.sft import SHAPES
from tests.stages.toy_chat import write_model

ANSWERS, TOKENS, STEPS, WARM, THREADS = 8, 64, 10, 2, 2
RATE, SEED = 1e-5, 0
SHAPE = "12m"


class Clock(TrainerCallback):
    """Notes when each optimizer step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the median time of a step, the first ones left out."""
        pairs = zip(self.ends[WARM - 1 :], self.ends[WARM:], strict=False)
        return statistics.median(after - before for before, after in pairs)


def conversations() -> list[list[dict[str, str]]]:
    """Return prompts of a builtin world."""
    rows = [row for row in generate("desk", "preferences", SEED) if row["split"] == "train"]
    return [list(row["prompt"]) for row in rows[: STEPS * ANSWERS]]


def write_policy(folder: Path) -> Model:
    """Write a random model that knows the prompts' words; it hardly ever ends an answer, so that all are as long."""
    texts = [message["content"] for prompt in conversations() for message in prompt]
    return write_model(folder, texts=texts * 4, **SHAPES[SHAPE])


def stock(trainer: Any, config: Any, policy: Model, reward: Any, folder: Path) -> float:
    """Return the seconds of a step of the script that everybody writes."""
    torch.set_num_threads(THREADS)
    clock = Clock()
    made = trainer(
        model=AutoModelForCausalLM.from_pretrained(policy.path),
        reward_funcs=reward,
        args=config(
            output_dir=str(folder), per_device_train_batch_size=ANSWERS, num_generations=ANSWERS, max_steps=STEPS,
            max_completion_length=TOKENS, learning_rate=RATE, use_cpu=True, save_strategy="no", report_to="none",
            disable_tqdm=True, bf16=torch.cpu._is_avx512_bf16_supported(), seed=SEED, gradient_accumulation_steps=1,
        ),
        train_dataset=Rows.from_list([{"prompt": prompt} for prompt in conversations()]),
        processing_class=AutoTokenizer.from_pretrained(policy.path),
        callbacks=[clock],
    )  # fmt: skip
    made.train()
    return clock.seconds()


def compare(name: str, ours: Callable[[Model, Path], float], theirs: Callable[[Model, Path], float]) -> None:
    """Print both and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        policy = write_policy(Path(scratch) / "policy")
        mine, other = ours(policy, Path(scratch) / "ours"), theirs(policy, Path(scratch) / "stock")
    print(
        f"{name} {SHAPE} {ANSWERS} x {TOKENS}: seconds_per_step {mine:.3f}, stock {other:.3f}, ratio {other / mine:.2f}"
    )


class Letters:
    """Something that differs from answer to answer: the share of letters."""

    __name__, weight, cases = "letters", 1.0, ()

    def __call__(self, completions: Any, **_: Any) -> list[float]:
        texts = [turns[-1]["content"] for turns in completions]
        return [sum(map(str.isalpha, text)) / max(1, len(text)) for text in texts]


def ours(policy: Model, folder: Path) -> float:
    """Return the seconds of a step of the stage's trainer."""
    config = GRPOConfig.model_validate({
        "learning_rate": RATE, "steps": STEPS, "prompts_per_rollout": 1, "answers_per_prompt": ANSWERS,
        "max_new_tokens": TOKENS, "threads": THREADS, "device": "cpu", "checkpoint_every": 10**6, "seed": SEED,
        "health": {"truncated": None, "zero_spread": None}, "zero_spread": "keep",
    })  # fmt: skip
    out, clock = Out(folder), Clock()
    loaded = Policy.load(policy, config, out, referenced=False)
    rows = [
        {"prompt": prompt, "ids": loaded.chat.render(prompt, open_turn=True).ids, "answer": "", "task": ""}
        for prompt in conversations()
    ]
    trainer = GroupTrainer(loaded, config, rows, [Letters()], out)
    trainer.add_callback(clock)
    train(trainer, OnlineReporter(out, config, lambda _: {}, "exact_match", {}))
    return clock.seconds()


if __name__ == "__main__":
    compare("grpo", ours, lambda policy, folder: stock(GRPOTrainer, TRLConfig, policy, Letters(), folder))
