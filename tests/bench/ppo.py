"""PPO against the last TRL that had one (1.12.0, in an environment of its own): time per update, reward at equal KL.

    python -m tests.bench.ppo

Time: the 12m shape, 8 answers of 64 tokens, 4 epochs, one optimizer step each; the stock trainer as it comes (padded,
activations recomputed, a value model of its own) and once more without recomputing. Reward: a small policy and a
reward model that likes its long answers, the same answers per update, epochs, minibatches and step size of the policy
(our value head starts from zero and steps by one over the model's width, the stock value model starts as the reward
model); our reward is read where our KL is no more than the stock run's at its end.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench import cache_of

os.environ.setdefault("HF_HUB_OFFLINE", "1")

STOCK = "trl==1.12.0"
ROOT = Path(__file__).resolve().parents[2]
THREADS = 2
TIMED = {"updates": 7, "answers": 8, "minibatches": 1, "tokens": 64, "rate": 1e-5, "precision": "bf16", "stop": False}
LEARNT = {"updates": 40, "answers": 32, "minibatches": 2, "tokens": 32, "rate": 1e-3, "precision": "fp32", "stop": True}
WARM = 2
QUIET = {"TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error"}


def environment() -> Path:
    """Return a folder with the stock TRL, installed once; it stands before this environment's own TRL."""
    cache = cache_of(STOCK)
    if not (cache / "trl").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(cache), STOCK]
        subprocess.run(command, check=True)
    return cache


def stock(work: Path, name: str, task: dict[str, Any], recomputed: bool = True) -> dict[str, Any]:
    """Run the stock trainer in its own process; return `ends` (seconds) and its logs."""
    order = {**task, "folder": str(work), "recomputed": recomputed, "told": str(work / f"{name}.json")}
    path = os.pathsep.join((str(environment()), str(ROOT)))
    command = [sys.executable, "-m", "tests.bench.ppo", "stock", json.dumps(order)]
    subprocess.run(
        command, check=True, cwd=work, env={**os.environ, **QUIET, "PYTHONPATH": path}, stdout=subprocess.DEVNULL
    )
    told: dict[str, Any] = json.loads(Path(order["told"]).read_text())
    return told


def run_stock(order: dict[str, Any]) -> None:
    """The script that everybody would write; runs where `trl` is the stock one."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOTrainer

    torch.set_num_threads(THREADS)
    told: dict[str, Any] = {"ends": [], "logs": []}

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            told["ends"].append(time.time())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            told["logs"].append(logs)

    folder = Path(order["folder"])
    policy, reward = (str(folder / name) for name in ("policy", "reward"))
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    rows = json.loads((folder / "prompts.json").read_text())
    judge = [
        AutoModelForSequenceClassification.from_pretrained(reward, num_labels=1, dtype=torch.float32) for _ in "rv"
    ]
    trainer = PPOTrainer(
        args=stock_config(order),
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        reward_model=judge[0],
        value_model=judge[1],
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        eval_dataset=Dataset.from_dict({"input_ids": rows[: order["answers"]]}),
        callbacks=[Clock()],
    )
    trainer.train()
    Path(order["told"]).write_text(json.dumps(told))


def stock_config(order: dict[str, Any]) -> Any:
    """Return the settings of the stock trainer."""
    from trl.experimental.ppo import PPOConfig

    recomputing = {} if order["recomputed"] else {"gradient_checkpointing": False}
    return PPOConfig(
        output_dir=str(Path(order["folder"]) / "stock"),
        per_device_train_batch_size=order["answers"] // order["minibatches"],
        gradient_accumulation_steps=order["minibatches"], num_mini_batches=order["minibatches"],
        total_episodes=order["updates"] * order["answers"], response_length=order["tokens"], temperature=1.0,
        learning_rate=order["rate"], num_ppo_epochs=4, stop_token="eos" if order["stop"] else None,
        missing_eos_penalty=1.0 if order["stop"] else None, num_sample_generations=0, logging_steps=1,
        bf16=order["precision"] == "bf16", save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        **recomputing,
    )  # fmt: skip


def ours(work: Path, name: str, task: dict[str, Any], inputs: Any) -> list[dict[str, Any]]:
    """Run the stage; return the points of its curves, with the time of each."""
    from pydantic import TypeAdapter

    from containers.out import Out
    from containers.rlhf.contract import STAGE
    from containers.rlhf.main import run

    size = task["answers"]
    config = TypeAdapter(STAGE.config).validate_python({
        "algorithm": "ppo", "updates": task["updates"], "batch_size": size, "epochs": 4, "threads": THREADS,
        "minibatch_size": size // task["minibatches"], "micro_batch_size": size // task["minibatches"],
        "max_new_tokens": task["tokens"], "learning_rate": task["rate"], "precision": task["precision"],
        "held_out_every": 10**6, "held_out_prompts": 1, "checkpoint_every": 10**6, "max_epoch_kl": None,
        "health": dict.fromkeys(("truncated", "kl", "length", "entropy", "zero_spread")), "device": "cpu",
    })  # fmt: skip
    run(config, inputs, Out(work / name))
    events = [json.loads(line) for line in (work / name / "events.jsonl").read_text().splitlines()]
    return [{"time": e["time"], **e["values"]} for e in events if e["event"] == "metrics"]


def write_inputs(work: Path, shape: dict[str, Any], learnt: bool) -> Any:
    """Write policy, reward model and prompts to `work`."""
    from containers.formats import ChatFormat, rows_of
    from containers.rlhf.contract import RLHFInputs
    from tests.stages.toy_chat import write_model
    from tests.stages.toy_pairs import preferences, write_pairs
    from tests.stages.toy_policy import teach, write_judge, write_reward

    policy = write_model(work / ("random" if learnt else "policy"), **shape)
    policy = teach(policy, work / "policy") if learnt else policy
    reward = write_judge(policy, work / "reward") if learnt else write_reward(policy, work / "reward")
    prompts = write_pairs(work / "prompts", preferences(96), preferences(2, 200))
    chat = ChatFormat.load(policy.path)
    rows = [chat.render(row, open_turn=True).ids for row in rows_of(prompts, "train").column("prompt").to_pylist()]
    (work / "prompts.json").write_text(json.dumps(rows))
    return RLHFInputs(policy=policy, reward=reward, prompts=prompts)


def seconds_per_update(ends: list[float]) -> float:
    """Return the median time from the end of one update to the end of the next, the first ones left out."""
    return statistics.median(after - before for before, after in pairwise(ends[WARM - 1 :]))


def measure_time() -> None:
    """Print seconds per update of both, and the ratio."""
    from containers.rlhf import ppo
    from tests.bench.sft import SHAPES

    plain = ppo.roll_out
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        inputs = write_inputs(work, SHAPES["12m"], learnt=False)

        def all_scored(*given: Any) -> Any:  # a random policy never ends an answer, and the stock side scores it too
            made = plain(*given)
            return replace(made, ended=made.ended | True)

        ppo.roll_out = all_scored
        mine = seconds_per_update([point["time"] for point in ours(work, "ours", TIMED, inputs)])
        ppo.roll_out = plain
        for name, recomputed in (("as it comes", True), ("without recomputing", False)):
            theirs = seconds_per_update(stock(work, name, TIMED, recomputed)["ends"])
            print(
                f"ppo 12m, 8 x 64 tokens, 4 epochs: {mine:.2f} s an update, {STOCK} {name} {theirs:.2f} s: "
                f"{theirs / mine:.2f} times as fast (goal 2)",
                flush=True,
            )


def measure_reward() -> None:
    """Print the reward of both where our KL is no more than the stock run's."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        inputs = write_inputs(work, {}, learnt=True)
        points = ours(work, "ours", LEARNT, inputs)
        logs = [log for log in stock(work, "learnt", LEARNT)["logs"] if "objective/scores" in log]
    window = 5
    theirs = {name: mean(logs[-window:], f"objective/{name}") for name in ("scores", "kl")}
    curve = [(mean(points[i : i + window], "kl"), mean(points[i : i + window], "reward"))
             for i in range(len(points) - window + 1)]  # fmt: skip
    kl, reward = max((point for point in curve if point[0] <= theirs["kl"]), key=lambda point: point[1])
    print(
        f"ppo reward model score, from {points[0]['reward']:.2f}: {reward:.2f} at KL {kl:.2f} (ends at "
        f"{curve[-1][1]:.2f}, KL {curve[-1][0]:.2f}); {STOCK} {theirs['scores']:.2f} at KL {theirs['kl']:.2f}",
        flush=True,
    )


def mean(points: list[dict[str, float]], name: str) -> float:
    """Return the mean of one curve over some points."""
    return statistics.mean(point[name] for point in points)


if __name__ == "__main__":
    if sys.argv[1:2] == ["stock"]:
        run_stock(json.loads(sys.argv[2]))
    else:
        measure_time()
        measure_reward()
