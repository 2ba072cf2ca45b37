"""Pretraining against a plain PyTorch loop, eager and compiled: same model, rows, tokens per step and threads.

    python -m tests.bench.pretrain [seconds per side]

The plain loop is what one would write in twenty lines: transformers' own loss, torch's AdamW, clipping, full rows of
random tokens and a plain causal mask. Ours trains on packed documents that cannot see each other. The sides take turns
a step at a time, so that a busy machine slows them alike; the ratio is of the medians. The padding of the packed
corpus is printed beside it: it is the price of not cutting documents.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from containers.formats import ChatFormat
from containers.out import Out
from containers.pretrain.contract import PretrainConfig, ShapeConfig
from containers.pretrain.engine import Engine
from containers.pretrain.main import prepare
from containers.pretrain.packing import Order, Rows
from containers.pretrain.shape import build
from containers.pretrain.tokens import tokenize
from containers.tokenizer.contract import TokenizerConfig, TokenizerInputs
from containers.tokenizer.main import run as learn_tokenizer
from tests.stages.small_corpus import small_corpus

GOAL = 0.95
SHAPE = ShapeConfig(width=192, layers=4, heads=6, kv_heads=3, ffn=512)
CONFIG = PretrainConfig(
    shape=SHAPE, sequence_length=256, batch_size=16, micro_batch_size=16, optimizer="adamw", device="cpu"
)
POSITIONS = CONFIG.sequence_length * CONFIG.batch_size

Step = Callable[[], object]


def main(seconds: float) -> int:
    """Print a table and the ratio; return 1 below GOAL."""
    with tempfile.TemporaryDirectory() as scratch:
        chat, rows = material(Path(scratch))
        print(f"packed corpus: {len(rows):,} rows of {rows.length}, {rows.padding:.2%} padding")
        sides: dict[str, Step] = {}
        for mode in ("eager", "compiled"):
            sides[f"plain {mode}"] = plain(chat, mode == "compiled")
            sides[f"ours {mode}"] = ours(chat, rows, mode == "compiled")
        warmth = {name: clocked(name, step) for name, step in sides.items()}
        rates = {name: POSITIONS / statistics.median(times) for name, times in in_turns(sides, seconds).items()}
    for name, rate in rates.items():
        print(f"{name:15} {rate:9,.0f} positions/s   first step {warmth[name]:5.1f} s")
    best = {who: max(rate for name, rate in rates.items() if name.startswith(who)) for who in ("plain", "ours")}
    ratio = best["ours"] / best["plain"]
    print(f"ours / best plain loop: {ratio:.3f} (goal {GOAL})")
    return int(ratio < GOAL)


def material(scratch: Path) -> tuple[ChatFormat, Rows]:
    """Return a tokenizer and a packed corpus of short stories."""
    corpus = small_corpus(scratch / "corpus", documents=5_000)
    made = learn_tokenizer(TokenizerConfig(), TokenizerInputs(corpus=corpus), Out(scratch / "tokenizer"))
    chat = ChatFormat.load(made.tokenizer.path)
    return chat, Rows(tokenize(corpus, "train", 10**9, chat, Out(scratch / "pretrain")), CONFIG.sequence_length)


def ours(chat: ChatFormat, rows: Rows, compiled: bool) -> Step:
    """Return one step of the stage: packing, masks and all."""
    config = CONFIG.revise(compile="on" if compiled else "off")
    prepare(config)
    engine, order, steps = Engine(build(config, chat), config, 1), Order(len(rows), 0), iter(range(10**9))

    def step() -> object:
        numbers = order.numbers(next(steps), config.batch_size)
        return float(engine.step([rows.take(numbers, config.micro_batch_size)], 1e-3).nats)

    return step


def plain(chat: ChatFormat, compiled: bool) -> Step:
    """Return one step of the plain loop."""
    model = LlamaForCausalLM(build(CONFIG, chat).config).train()
    forward = torch.compile(model, dynamic=False) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    draw = np.random.default_rng(0)

    def step() -> object:
        size = (CONFIG.batch_size, CONFIG.sequence_length)
        ids = torch.from_numpy(draw.integers(0, model.config.vocab_size, size))
        loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def clocked(name: str, step: Step) -> float:
    """Return the seconds that one step took; only ours pays for determinism."""
    torch.use_deterministic_algorithms(name.startswith("ours"))
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def in_turns(sides: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Return the times of each side's steps, sides taking turns for `seconds` each."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    while sum(map(sum, times.values())) < seconds * len(sides):
        for name, step in sides.items():
            times[name].append(clocked(name, step))
    return times


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 15.0))
