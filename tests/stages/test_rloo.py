"""rlhf, rloo: what is learnt, what is reproducible, what survives a kill, which faults are caught."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from containers.contract import Adapter, Dataset, Model, RewardModel, Unhealthy
from containers.out import Out
from containers.policy import Policy
from containers.rewarding import Rewarder
from containers.rlhf.contract import STAGE, RLHFInputs
from containers.rlhf.main import run
from containers.rlhf.prompts import read_prompts
from containers.rlhf.rloo import LeaveOneOutTrainer
from containers.rlhf.rloo_config import RLOOConfig
from tests.by_hand import logged, run_by_hand
from tests.stages.toy_chat import write_model
from tests.stages.toy_pairs import card_of, curve, kill_after_checkpoint, preferences, write_pairs
from tests.stages.toy_policy import teach, write_judge

METHODS = ({"method": "full"}, {"method": "lora", "r": 4}, {"method": "qlora", "r": 4})
KILLED = [METHODS[0], *(pytest.param(weights, marks=pytest.mark.slow) for weights in METHODS[1:])]
"""Weights whose training is killed: the adapters in the slow tests."""


def config_of(**changes: Any) -> Any:
    small = {
        "algorithm": "rloo", "learning_rate": 2e-3, "steps": 6, "prompts_per_rollout": 4, "answers_per_prompt": 4,
        "max_new_tokens": 24, "threads": 1, "device": "cpu", "precision": "fp32", "logging_steps": 1,
        "validate_every": 3, "validation_rows": 4, "checkpoint_every": 2,
    }  # fmt: skip
    return TypeAdapter(STAGE.config).validate_python(small | changes)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RLHFInputs:
    torch.set_num_threads(1)
    work = tmp_path_factory.mktemp("rloo")
    policy: Model = teach(write_model(work / "random"), work / "policy")
    reward: RewardModel = write_judge(policy, work / "reward")
    prompts: Dataset = write_pairs(work / "prompts", preferences(48), preferences(8, 100))
    return RLHFInputs(policy=policy, reward=reward, prompts=prompts)


def pays_for(judge: Callable[[Sequence[int]], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put `judge` (token ids of prompt and answer -> reward) in the reward model's place."""
    monkeypatch.setattr(Rewarder, "scores", lambda self, chats: torch.tensor([float(judge(chat)) for chat in chats]))


@pytest.mark.parametrize("weights", METHODS, ids=lambda w: w["method"])
def test_two_runs_in_two_folders_give_equal_bytes(tmp_path: Path, inputs: RLHFInputs, weights: dict[str, Any]) -> None:
    config = config_of(weights=weights)
    made = [run(config, inputs, Out(tmp_path / name)).model for name in ("a", "b/c")]
    assert made[0].digest == made[1].digest != inputs.policy.digest
    assert isinstance(made[0], Model if weights["method"] == "full" else Adapter)
    for file in made[0].path.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
    for name in ("reward", "kl", "entropy", "length", "truncated", "zero_spread", "log_prob_gap", "gradient_norm"):
        assert len(curve(tmp_path / "a", name)) == 6, name
    assert len(curve(tmp_path / "a", "held_out")) == 3
    card = card_of(tmp_path / "a")
    assert card["samples"] and card["algorithm"] == "rloo" and "held_out_before" in card
    assert card["log_prob_gap"] < (1e-4 if weights["method"] != "qlora" else 1e-2)


def test_answers_that_are_liked_better_are_given_more_often(tmp_path: Path, inputs: RLHFInputs) -> None:
    config = config_of(steps=30, answers_per_prompt=8, normalize_advantages=True)
    run(config, inputs, Out(tmp_path))
    rewards = curve(tmp_path, "reward")
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
    assert curve(tmp_path, "held_out")[-1] > curve(tmp_path, "held_out")[0]
    assert abs(curve(tmp_path, "kl")[0]) < 1e-4 and curve(tmp_path, "kl")[-1] > 0.01


def test_what_a_rollout_was_drawn_with_is_the_old_policy(tmp_path: Path, inputs: RLHFInputs) -> None:
    """TRL computes it again by a forward pass; that pass says the same."""
    config: RLOOConfig = config_of()
    policy = Policy.load(inputs.policy, config, Out(tmp_path))
    prompts = read_prompts(inputs.prompts, "train", policy, 512, 24).kept
    trainer = LeaveOneOutTrainer(policy, config, prompts, Rewarder(inputs.reward, policy, 16), Out(tmp_path))
    rows = [{"prompt": [{"role": "user", "content": p.text}], "ids": p.ids} for p in prompts[:4] for _ in range(4)]
    trainer.model.train()
    made = trainer._generate_and_score_completions(rows)
    ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
    mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
    with torch.no_grad():
        scored, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, made["completion_ids"].shape[1]
        )
    again = (scored * made["completion_mask"]).sum(1)
    torch.testing.assert_close(made["old_logps"], again, rtol=1e-4, atol=1e-4)
    groups = made["advantages"].view(4, 4)  # leave one out: a group's advantages add up to nothing
    torch.testing.assert_close(groups.sum(1), torch.zeros(4), rtol=0, atol=1e-4)


@pytest.mark.kill
@pytest.mark.parametrize("weights", KILLED, ids=lambda w: w["method"])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, inputs: RLHFInputs, weights: dict[str, Any]) -> None:
    config = config_of(weights=weights, steps=32, steps_per_rollout=2, validate_every=100)
    whole, _ = run_by_hand(tmp_path / "whole", "rlhf", config, inputs)
    kill_after_checkpoint(tmp_path / "killed", "rlhf", config, inputs, 8)
    made, _ = run_by_hand(tmp_path / "killed", "rlhf", config, inputs)
    assert any("going on from step" in line for line in logged(tmp_path / "killed", "info"))
    assert made.model.digest == whole.model.digest


def test_a_reward_that_is_always_the_same_is_caught(
    tmp_path: Path, inputs: RLHFInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pays_for(lambda chat: 1.0, monkeypatch)
    with pytest.raises(Unhealthy, match="zero_spread"):
        run(config_of(steps=20, beta=0, unended_penalty=0, health={"window": 4}), inputs, Out(tmp_path))
    assert (tmp_path / "outputs/card/health.html").is_file()


def test_a_reward_that_pays_for_length_is_caught(
    tmp_path: Path, inputs: RLHFInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pays_for(lambda chat: len(chat) / 10, monkeypatch)
    config = config_of(
        steps=80, beta=0, unended_penalty=0, learning_rate=5e-3, max_new_tokens=60, answers_per_prompt=8,
        health={"window": 4, "length": 2.0, "held_out_fall": None},
    )  # fmt: skip
    with pytest.raises(Unhealthy, match=r"health\.(length|truncated|kl)"):
        run(config, inputs, Out(tmp_path))
