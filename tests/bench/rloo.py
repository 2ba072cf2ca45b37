"""RLOO against a stock TRL script at equal settings, one after the other: python -m tests.bench.rloo.

The reward model is of the policy's size; both sides hold the policy to a reference (beta 0.05).
"""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForSequenceClassification
from trl.trainer.rloo_config import RLOOConfig as TRLConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from containers.contract import Model, RewardModel
from containers.online.reporter import OnlineReporter, train
from containers.out import Out
from containers.policy import Policy
from containers.reward_model import load_reward_model, save_reward_model
from containers.rewarding import Rewarder
from containers.rlhf.prompts import Prompt
from containers.rlhf.rloo import LeaveOneOutTrainer
from containers.rlhf.rloo_config import RLOOConfig
from tests.bench.grpo import ANSWERS, RATE, SEED, STEPS, THREADS, TOKENS, Clock, compare, conversations, stock


def reward_beside(policy: Model) -> RewardModel:
    """Write a reward model with a random head."""
    folder = policy.path.parent / "reward"
    if not folder.is_dir():
        folder.mkdir()
        torch.manual_seed(SEED)
        return save_reward_model(load_reward_model(policy, "fp32"), folder, policy.path)
    return RewardModel.of(folder, tokenizer=policy.tokenizer, template=policy.template, stop_ids=policy.stop_ids)


def ours(policy: Model, folder: Path) -> float:
    """Return the seconds of a step of the stage's trainer."""
    config = RLOOConfig.model_validate({
        "learning_rate": RATE, "steps": STEPS, "prompts_per_rollout": 1, "answers_per_prompt": ANSWERS,
        "max_new_tokens": TOKENS, "threads": THREADS, "device": "cpu", "checkpoint_every": 10**6, "seed": SEED,
        "health": {"truncated": None},
    })  # fmt: skip
    out, clock = Out(folder), Clock()
    loaded = Policy.load(policy, config, out)
    rewarder = Rewarder(reward_beside(policy), loaded, ANSWERS)
    prompts = [Prompt(loaded.chat.render(p, open_turn=True).ids, p[-1]["content"]) for p in conversations()]
    trainer = LeaveOneOutTrainer(loaded, config, prompts, rewarder, out)
    trainer.add_callback(clock)
    train(trainer, OnlineReporter(out, config, lambda _: {}, "held_out", {}))
    return clock.seconds()


def theirs(policy: Model, folder: Path) -> float:
    """Return the seconds of a step of the stock script."""
    reward = AutoModelForSequenceClassification.from_pretrained(reward_beside(policy).path, num_labels=1)
    return stock(RLOOTrainer, TRLConfig, policy, reward, folder)


if __name__ == "__main__":
    compare("rloo", ours, theirs)
