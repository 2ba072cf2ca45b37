"""rlhf, ppo: what is learnt, what is refused, what is reproducible, what survives a kill, which faults are caught."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from containers.contract import Adapter, Dataset, Model, RewardModel, StageError, Unhealthy
from containers.formats import ChatFormat, identity_of
from containers.generation import Draw
from containers.out import Out
from containers.policy import Policy
from containers.reward_model import load_reward_model
from containers.rewarding import Rewarder
from containers.rlhf.actor_critic import ActorCritic
from containers.rlhf.contract import STAGE, RLHFInputs
from containers.rlhf.improving import rate_factor
from containers.rlhf.main import run
from containers.rlhf.ppo import places_of
from containers.rlhf.prompts import read_prompts
from containers.rlhf.rollouts import roll_out
from tests.by_hand import run_by_hand, try_by_hand
from tests.stages.toy_chat import CHATML, chats, write_chats, write_model
from tests.stages.toy_pairs import card_of, curve, kill_after_checkpoint, preferences, write_pairs
from tests.stages.toy_policy import teach, write_reward

METHODS = ({"method": "full"}, {"method": "lora", "r": 4}, {"method": "qlora", "r": 4})
NO_END = CHATML.replace("<|im_end|>", "")
OTHER_END = CHATML.replace("<|im_end|>", "<|endoftext|>")


def config_of(**changes: Any) -> Any:
    small = {
        "algorithm": "ppo", "learning_rate": 2e-3, "updates": 4, "batch_size": 16, "minibatch_size": 8, "epochs": 2,
        "micro_batch_size": 8, "max_new_tokens": 24, "threads": 1, "device": "cpu", "precision": "fp32",
        "held_out_prompts": 4, "held_out_every": 2, "checkpoint_every": 2, "health": {"held_out_fall": None},
    }  # fmt: skip
    return TypeAdapter(STAGE.config).validate_python(small | changes)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("rlhf")


@pytest.fixture(scope="module")
def policy(work: Path) -> Model:
    return teach(write_model(work / "random"), work / "policy")


@pytest.fixture(scope="module")
def reward(work: Path, policy: Model) -> RewardModel:
    return write_reward(policy, work / "reward", 10)


@pytest.fixture(scope="module")
def prompts(work: Path) -> Dataset:
    return write_pairs(work / "prompts", preferences(48), preferences(8, 100))


@pytest.fixture(scope="module")
def inputs(policy: Model, reward: RewardModel, prompts: Dataset) -> RLHFInputs:
    return RLHFInputs(policy=policy, reward=reward, prompts=prompts)


def pays_for(judge: Callable[[Sequence[int]], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put `judge` (token ids of prompt and answer -> reward) in the reward model's place."""
    monkeypatch.setattr(Rewarder, "scores", lambda self, chats: torch.tensor([float(judge(chat)) for chat in chats]))


# What is learnt


@pytest.mark.parametrize("weights", METHODS)
def test_two_runs_in_two_folders_give_equal_bytes(tmp_path: Path, inputs: RLHFInputs, weights: dict[str, Any]) -> None:
    config = config_of(weights=weights)
    made = [run(config, inputs, Out(tmp_path / name)).model for name in ("a", "b/c")]
    assert made[0].digest == made[1].digest != inputs.policy.digest
    assert isinstance(made[0], Model if weights["method"] == "full" else Adapter)
    for file in made[0].path.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
    figures = {"reward", "kl", "entropy", "length", "truncated", "zero_spread", "log_prob_gap", "clipped_share",
               "value_loss", "policy_loss", "explained_variance", "gradient_norm"}  # fmt: skip
    for name in figures:
        assert len(curve(tmp_path / "a", name)) == 4
    assert len(curve(tmp_path / "a", "held_out")) == 2
    assert curve(tmp_path / "a", "kl")[0] == pytest.approx(0, abs=1e-3)  # reference and policy begin as one
    assert max(curve(tmp_path / "a", "log_prob_gap")) < 1e-4
    assert len(card_of(tmp_path / "a")["samples"]) == 4


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_reward_rises(tmp_path: Path, inputs: RLHFInputs, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatFormat.load(inputs.policy.path)
    pays_for(lambda ids: chat.decode(ids).endswith("know."), monkeypatch)  # one answer in two, before training
    run(config_of(updates=16, optimizer=optimizer, kl_coefficient=0.01), inputs, Out(tmp_path))
    reward = curve(tmp_path, "reward")
    assert sum(reward[-4:]) / 4 > sum(reward[:2]) / 2 + 0.25, reward


def test_a_strong_penalty_holds_the_policy_to_its_reference(
    tmp_path: Path, inputs: RLHFInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pays_for(lambda chat: -len(chat), monkeypatch)
    for name, coefficient in (("free", 0.0), ("held", 2.0)):
        run(config_of(updates=8, kl_coefficient=coefficient), inputs, Out(tmp_path / name))
    assert curve(tmp_path / "held", "kl")[-1] < 0.5 * curve(tmp_path / "free", "kl")[-1]


def test_a_target_steers_the_penalty(tmp_path: Path, inputs: RLHFInputs) -> None:
    run(config_of(kl_target=1e-3, kl_horizon=64), inputs, Out(tmp_path))
    coefficient = curve(tmp_path, "kl_coefficient")
    assert coefficient[-1] != coefficient[0] == 0.05


def test_a_batch_is_left_once_the_policy_has_left_it(tmp_path: Path, inputs: RLHFInputs) -> None:
    run(config_of(max_epoch_kl=1e-9), inputs, Out(tmp_path))
    assert max(curve(tmp_path, "optimizer_steps")) < 4


def test_micro_batches_change_nothing_but_memory(tmp_path: Path, inputs: RLHFInputs) -> None:
    for size in (2, 8):
        run(config_of(micro_batch_size=size, updates=1), inputs, Out(tmp_path / str(size)))
    for name in ("value_loss", "policy_loss", "gradient_norm", "kl"):
        assert curve(tmp_path / "2", name) == pytest.approx(curve(tmp_path / "8", name), rel=1e-3, abs=1e-5)


def test_an_answer_is_scored_as_transformers_does(inputs: RLHFInputs, tmp_path: Path) -> None:
    policy = Policy.load(inputs.policy, config_of(), Out(tmp_path))
    chats = roll_out(policy, read_prompts(inputs.prompts, "validation", policy, 64, 24).kept, 24).chats()
    judge = Rewarder(inputs.reward, policy, 3)
    alone = load_reward_model(inputs.reward, "fp32")
    alone.set_attn_implementation("sdpa")
    with torch.no_grad():
        wanted = [float(alone(torch.tensor([chat])).logits) for chat in chats]
    assert judge.scores(chats).tolist() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("weights", METHODS)
def test_values_start_from_zero_and_log_probabilities_are_the_models_own(
    inputs: RLHFInputs, tmp_path: Path, weights: dict[str, Any]
) -> None:
    policy = Policy.load(inputs.policy, config_of(weights=weights), Out(tmp_path))
    actor = ActorCritic(policy, 0.8)
    rollouts = roll_out(policy, read_prompts(inputs.prompts, "train", policy, 64, 24).kept[:5], 24, Draw(0.8, seed=1))
    mine, reference = actor.look_back(rollouts.lessons(), 2)
    assert mine.values.abs().sum() == 0
    torch.testing.assert_close(mine.log_probs, reference)
    drawn = torch.tensor([value for answer in rollouts.answers for value in answer.log_probs])
    torch.testing.assert_close(mine.log_probs, drawn, rtol=1e-3, atol=1e-3)


def test_every_prompt_is_answered_once_before_one_is_answered_again() -> None:
    places = [place for update in range(1, 6) for place in places_of(10, 4, update, seed=3)]
    assert sorted(places[:10]) == sorted(places[10:]) == list(range(10)) and places[:10] != places[10:]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_step_size_warms_up_and_decays(schedule: str) -> None:
    config = config_of(schedule=schedule, warmup_steps=4)
    rates = [rate_factor(config, step, 16) for step in range(16)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and max(rates) == 1
    assert (rates[-1] == 1) if schedule == "constant" else (rates[-1] < 0.1)


# What survives a kill


@pytest.mark.kill
@pytest.mark.parametrize(
    "weights", [METHODS[0], *(pytest.param(method, marks=pytest.mark.slow) for method in METHODS[1:])]
)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, inputs: RLHFInputs, weights: dict[str, Any]) -> None:
    config = config_of(weights=weights, updates=5, checkpoint_every=1, optimizer="muon", kl_target=1.0)
    whole, result = run_by_hand(tmp_path / "whole", "rlhf", config, inputs)
    kill_after_checkpoint(tmp_path / "killed", "rlhf", config, inputs, step=2)
    resumed, again = run_by_hand(tmp_path / "killed", "rlhf", config, inputs)
    assert resumed.model.digest == whole.model.digest
    for name in ("reward", "kl", "held_out", "kl_coefficient"):
        assert again.metrics[name] == result.metrics[name]
    assert card_of(tmp_path / "killed")["samples"] == card_of(tmp_path / "whole")["samples"]


# What is refused


def test_a_reward_model_of_another_tokenizer_is_refused(tmp_path: Path, inputs: RLHFInputs) -> None:
    other = write_reward(write_model(tmp_path / "other", texts=["other words " * 9]), tmp_path / "reward")
    with pytest.raises(StageError, match="another tokenizer"):
        run(config_of(), inputs.revise(reward=other), Out(tmp_path / "out"))
    other = write_reward(write_model(tmp_path / "third", template=OTHER_END), tmp_path / "reward3")
    with pytest.raises(StageError, match="another chat template"):
        run(config_of(), inputs.revise(reward=other), Out(tmp_path / "out"))


def test_a_policy_is_no_reward_model(tmp_path: Path, inputs: RLHFInputs, policy: Model) -> None:
    fake = RewardModel.of(policy.path, **identity_of(policy.path))
    with pytest.raises(StageError, match="stage `reward`"):
        run(config_of(), inputs.revise(reward=fake), Out(tmp_path))


def test_prompts_must_be_there_and_leave_room(tmp_path: Path, inputs: RLHFInputs) -> None:
    with pytest.raises(StageError, match="max_prompt_tokens"):
        run(config_of(max_prompt_tokens=3), inputs, Out(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    with pytest.raises(StageError, match="holds none"):
        problems = inputs.prompts.revise(role="problems")
        run(config_of(), inputs.revise(prompts=problems), Out(tmp_path / "b"))


def test_instructions_serve_as_prompts(tmp_path: Path, inputs: RLHFInputs) -> None:
    lessons = write_chats(tmp_path / "data", chats(20), chats(4, 50))
    run(config_of(updates=1), inputs.revise(prompts=lessons), Out(tmp_path / "out"))
    assert card_of(tmp_path / "out")["prompts"] == 20


def test_numbers_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of minibatch_size"):
        config_of(minibatch_size=7)


# Planted faults, each caught with evidence

QUICK = {"window": 2, "held_out_fall": None}


def evidence(folder: Path) -> dict[str, Any]:
    assert "<svg" in (folder / "outputs/card/health.html").read_text()
    record: dict[str, Any] = json.loads((folder / "outputs/card/health.json").read_text())
    assert record["worst"] and len(record["curves"]["reward"]) == record["step"]
    assert (folder / f"work/checkpoint-{record['step']}/COMMIT.json").is_file()
    return record


def test_a_reward_that_is_always_the_same_is_caught_in_one_plain_line(
    tmp_path: Path, inputs: RLHFInputs, policy: Model
) -> None:
    constant = write_reward(policy, tmp_path / "reward", 0.0)
    code, errors = try_by_hand(
        tmp_path / "stage", "rlhf", config_of(updates=50, health=QUICK), inputs.revise(reward=constant)
    )
    assert code == 1 and "health.zero_spread 0.9: zero spread is 1; " in errors and "Traceback" not in errors
    assert evidence(tmp_path / "stage")["step"] == 2


def test_a_reward_that_pays_for_length_is_caught(
    tmp_path: Path, inputs: RLHFInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pays_for(len, monkeypatch)
    config = config_of(
        updates=60,
        max_new_tokens=64,
        kl_coefficient=0.0,
        unended_reward=2.0,
        health=QUICK | {"kl": None, "length": 1.5},
    )
    with pytest.raises(Unhealthy, match=r"health\.(length|truncated)"):
        run(config, inputs, Out(tmp_path))
    assert evidence(tmp_path)["step"] < 60


def test_a_hackable_reward_without_a_penalty_is_caught(
    tmp_path: Path, inputs: RLHFInputs, policy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = ChatFormat.load(policy.path).encode(" red")[0]
    pays_for(lambda chat: sum(i == token for i in chat[-24:]), monkeypatch)
    config = config_of(updates=60, kl_coefficient=0.0, health=QUICK | {"kl": 5})
    with pytest.raises(Unhealthy, match=r"health\.(kl|entropy|truncated|length)"):
        run(config, inputs, Out(tmp_path))
    assert evidence(tmp_path)["step"] < 60


def test_a_template_that_lost_its_end_of_turn_is_refused(tmp_path: Path, inputs: RLHFInputs, policy: Model) -> None:
    lost = retold(policy, NO_END, tmp_path / "policy")
    with pytest.raises(StageError, match=r"never ends: it renders '<\|im_start\|>user"):
        run(config_of(), inputs.revise(policy=lost), Out(tmp_path / "out"))


def test_a_template_with_another_end_of_turn_is_caught(tmp_path: Path, inputs: RLHFInputs, policy: Model) -> None:
    other = retold(policy, OTHER_END, tmp_path / "policy")
    judge = write_reward(other, tmp_path / "reward", 10)
    with pytest.raises(Unhealthy, match=r"health\.truncated 0\.5: truncated is 1; .*template"):
        run(config_of(updates=50, health=QUICK), RLHFInputs(policy=other, reward=judge, prompts=inputs.prompts),
            Out(tmp_path / "out"))  # fmt: skip
    assert evidence(tmp_path / "out")["step"] == 2


def retold(policy: Model, template: str, folder: Path) -> Model:
    """Return the policy with another chat template beside it."""
    folder.mkdir()
    for file in policy.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(template)
    return Model.of(folder, **identity_of(folder))
