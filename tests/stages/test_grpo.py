"""grpo: what is learnt, what is refused, what is reproducible, what survives a kill, what the guard stops."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.grpo_config import GRPOConfig as TRLConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from containers.contract import Dataset, Files, Model, StageError, Unhealthy
from containers.grpo.config import AnswerReward, GRPOConfig
from containers.grpo.contract import GRPOInputs
from containers.grpo.main import run
from containers.grpo.problems import problems_in
from containers.grpo.rewards import Answers
from containers.grpo.trainer import GroupTrainer
from containers.models import load_model
from containers.out import Out
from containers.policy import Policy
from tests.by_hand import logged, run_by_hand
from tests.stages.toy_pairs import card_of, curve, kill_after_checkpoint
from tests.stages.toy_problems import write_policy, write_problems

METHODS = ({"method": "full"}, {"method": "lora", "r": 4}, {"method": "qlora", "r": 4})
KILLED = [METHODS[0], *(pytest.param(weights, marks=pytest.mark.slow) for weights in METHODS[1:])]
"""Weights whose training is killed: the adapters in the slow tests."""


def config_of(**changes: Any) -> GRPOConfig:
    small = {
        "learning_rate": 3e-3, "steps": 12, "prompts_per_rollout": 4, "answers_per_prompt": 8, "max_new_tokens": 12,
        "threads": 1, "device": "cpu", "precision": "fp32", "logging_steps": 1, "validate_every": 6,
        "validation_rows": 16, "checkpoint_every": 4,
        "health": {"zero_spread": None, "entropy": None, "truncated": None},
    }  # fmt: skip
    return GRPOConfig.model_validate(small | changes)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_policy(tmp_path_factory.mktemp("grpo"))


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_problems(tmp_path_factory.mktemp("grpo") / "problems")


# What is learnt


@pytest.mark.parametrize("weights", METHODS, ids=lambda w: w["method"])
def test_what_is_right_is_said_more_often_and_two_runs_give_equal_bytes(
    tmp_path: Path, policy: Model, problems: Dataset, weights: dict[str, Any]
) -> None:
    pace = {"learning_rate": 3e-3} if weights["method"] == "full" else {"learning_rate": 8e-3, "steps": 24}
    config = config_of(weights=weights, beta=0.02, **pace)
    inputs = GRPOInputs(policy=policy, problems=problems)
    made = [run(config, inputs, Out(tmp_path / n)) for n in ("a", "b/c")]
    assert made[0].model.digest == made[1].model.digest != policy.digest
    assert made[0].model.kind == ("model" if weights["method"] == "full" else "adapter")
    rewards = curve(tmp_path / "a", "reward")
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    card = card_of(tmp_path / "a")
    assert len(curve(tmp_path / "a", "exact_match")) == 1 + config.steps // 6
    assert card["log_prob_gap"] < (1e-4 if weights["method"] != "qlora" else 1e-2)
    assert {"reward_answer", "kl", "entropy", "zero_spread", "truncated", "length"} <= set(card)
    assert card["samples"] and "exact_match_before" in card
    for file in made[0].model.path.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes() and str(policy.path).encode() not in file.read_bytes()
    assert not [f for f in made[0].model.path.iterdir() if f.suffix in (".bin", ".pt", ".md")]


def test_the_loss_and_its_gradient_are_trls_own(tmp_path: Path, policy: Model, problems: Dataset) -> None:
    """The joints change how it is computed, not what: the same answers give the same gradient in a stock trainer."""
    config = config_of(beta=0.1, zero_spread="skip")
    loaded = Policy.load(policy, config, Out(tmp_path / "a"))
    rows = problems_in(problems, "train", config, loaded.chat, 96)
    ours = GroupTrainer(loaded, config, rows, [Answers(AnswerReward())], Out(tmp_path / "a"))
    ours.current_gradient_accumulation_steps = 1
    for parameter in loaded.frozen.parameters():  # type: ignore[union-attr]
        parameter.data *= 1.01  # a reference that differs, so that its pull shows
    batch = [row for row in rows[:4] for _ in range(8)]
    ours.model.train()
    inputs = ours._generate_and_score_completions(batch)
    assert int((inputs["advantages"] != 0).sum()) > 0
    keep = GroupTrainer(loaded, config.revise(zero_spread="keep"), rows, [Answers(AnswerReward())], Out(tmp_path / "b"))
    keep.current_gradient_accumulation_steps = 1
    keep._compute_loss(keep.model, inputs).backward()
    mine = [p.grad.clone() for p in keep.model.parameters()]
    stock = stock_trainer(tmp_path, policy)
    stock.beta, stock.current_gradient_accumulation_steps = 0.1, 1
    stock._compute_loss(stock.model, inputs).backward()
    for gradient, parameter in zip(mine, stock.model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-5)


def stock_trainer(folder: Path, policy: Model) -> GRPOTrainer:
    from datasets import Dataset as Rows
    from transformers import AutoTokenizer

    model = load_model(policy, "fp32")
    arguments = TRLConfig(
        str(folder / "stock"), use_cpu=True, bf16=False, per_device_train_batch_size=32, num_generations=8,
        max_completion_length=12, report_to="none", beta=0.0,
    )  # fmt: skip
    rows = Rows.from_dict({"prompt": ["x"] * 4})
    return GRPOTrainer(
        model=model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=arguments,
        train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(policy.path),
    )  # fmt: skip


@pytest.mark.parametrize("loss", ["dapo", "dr_grpo", "grpo"])
def test_sparing_groups_that_teach_nothing_changes_no_gradient(
    tmp_path: Path, policy: Model, problems: Dataset, loss: str
) -> None:
    gradients = []
    for way in ("skip", "keep"):
        config = config_of(zero_spread=way, loss=loss, prompts_per_rollout=8, answers_per_prompt=4)
        loaded = Policy.load(policy, config, Out(tmp_path / way), referenced=False)
        rows = problems_in(problems, "train", config, loaded.chat, 96)
        trainer = GroupTrainer(loaded, config, rows, [Answers(AnswerReward())], Out(tmp_path / way))
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        inputs = trainer._generate_and_score_completions([row for row in rows[:8] for _ in range(4)])
        inputs["advantages"][:8] = 0
        trainer._compute_loss(trainer.model, inputs).backward()
        gradients.append([p.grad for p in trainer.model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_micro_batches_do_not_change_what_is_learnt(tmp_path: Path, policy: Model, problems: Dataset) -> None:
    inputs = GRPOInputs(policy=policy, problems=problems)
    weights = []
    for size in (None, 8):
        made = run(config_of(steps=2, micro_batch_size=size), inputs, Out(tmp_path / str(size)))
        weights.append(load_model(made.model, "fp32").state_dict())
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-3), name


def test_instruction_tasks_and_several_rewards(tmp_path: Path, policy: Model, problems: Dataset) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/mine.py").write_text(
        "def brief(completion_ids, **_): return [-len(x) / 10 for x in completion_ids]"
    )
    config = config_of(
        steps=2, tasks=["colour.1"], instruction="Think step by step.", max_new_tokens=8,
        rewards=[
            {"kind": "answer"}, {"kind": "format", "weight": 0.5}, {"kind": "length", "max_tokens": 8, "weight": 0.1},
            {"kind": "function", "path": "mine.py:brief"},
        ],
    )  # fmt: skip
    inputs = GRPOInputs(policy=policy, problems=problems, functions=Files.of(tmp_path / "files"))
    run(config, inputs, Out(tmp_path / "out"))
    card = card_of(tmp_path / "out")
    assert card["problems"] == 24 and {"reward_answer", "reward_format", "reward_length", "reward_brief"} <= set(card)
    assert "exact_match_other_tasks" in card
    assert all(sample["prompt"].endswith("\nThink step by step.") for sample in card["samples"])
    assert "path" not in json.dumps(card["rewards"])


# What is refused


def test_problems_that_do_not_fit_are_refused_in_words(tmp_path: Path, policy: Model, problems: Dataset) -> None:
    inputs = GRPOInputs(policy=policy, problems=problems)
    with pytest.raises(StageError, match=r"colour\.0, colour\.1"):
        run(config_of(tasks=["shop"]), inputs, Out(tmp_path / "a"))
    with pytest.raises(StageError, match="shorten max_new_tokens"):
        run(config_of(max_new_tokens=95), inputs, Out(tmp_path / "b"))


def test_a_function_that_fails_its_case_stops_before_the_first_answer(
    tmp_path: Path, policy: Model, problems: Dataset
) -> None:
    (tmp_path / "files").mkdir()
    text = "def score(completions, **_): return [0.0]\nCASES = [{'name': 'good', 'reply': 'a', 'reward': 1}]"
    (tmp_path / "files/mine.py").write_text(text)
    inputs = GRPOInputs(policy=policy, problems=problems, functions=Files.of(tmp_path / "files"))
    with pytest.raises(StageError, match=r"score gives 0\.0 where its case 'good' wants 1"):
        run(config_of(rewards=[{"kind": "function", "path": "mine.py:score"}]), inputs, Out(tmp_path / "out"))
    assert not curve(tmp_path / "out", "reward")


# Planted faults


def planted(folder: Path, policy: Model, problems: Dataset, function: str, **changes: Any) -> str:
    (folder / "files").mkdir()
    (folder / "files/mine.py").write_text(
        f"def score(completion_ids, **_): return [{function} for x in completion_ids]"
    )
    inputs = GRPOInputs(policy=policy, problems=problems, functions=Files.of(folder / "files"))
    config = config_of(rewards=[{"kind": "function", "path": "mine.py:score"}], **changes)
    with pytest.raises(Unhealthy) as caught:
        run(config, inputs, Out(folder / "out"))
    assert (folder / "out/outputs/card/health.html").is_file()
    record = json.loads((folder / "out/outputs/card/health.json").read_text())
    assert record["worst"] and list((folder / "out/work").glob("checkpoint-*/COMMIT.json"))
    return str(caught.value)


def test_a_reward_that_is_always_the_same_is_caught(tmp_path: Path, policy: Model, problems: Dataset) -> None:
    said = planted(tmp_path, policy, problems, "1.0", health={"window": 4}, steps=40)
    assert "zero_spread" in said and "check the reward" in said and "step 4" in said


def test_a_reward_that_pays_for_length_is_caught(tmp_path: Path, policy: Model, problems: Dataset) -> None:
    said = planted(
        tmp_path, policy, problems, "len(x) / 10", health={"window": 4, "length": 2.0, "truncated": 0.6},
        steps=60, learning_rate=1e-2, max_new_tokens=40,
    )  # fmt: skip
    assert "health.length" in said or "health.truncated" in said


# What survives a kill


@pytest.mark.kill
@pytest.mark.parametrize("weights", KILLED, ids=lambda w: w["method"])
def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, policy: Model, problems: Dataset, weights: dict[str, Any]
) -> None:
    config = config_of(
        weights=weights, steps=36, steps_per_rollout=2, beta=0.02, checkpoint_every=3, validate_every=100
    )
    inputs = GRPOInputs(policy=policy, problems=problems)
    whole, _ = run_by_hand(tmp_path / "whole", "grpo", config, inputs)
    kill_after_checkpoint(tmp_path / "killed", "grpo", config, inputs, 12)
    made, _ = run_by_hand(tmp_path / "killed", "grpo", config, inputs)
    assert any("going on from step" in line for line in logged(tmp_path / "killed", "info"))
    assert made.model.digest == whole.model.digest
