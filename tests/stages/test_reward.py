"""reward: what a score is read from, what is refused, what is reproducible, what survives a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from containers.contract import Dataset, Model
from containers.formats import ChatFormat
from containers.out import Out
from containers.pairs.measures import accuracy, calibration, length_bias
from containers.pairs.packing import predicted_row, scored_row
from containers.pairs.rows import read_pairs
from containers.reward.contract import RewardConfig, RewardInputs
from containers.reward.main import run
from containers.reward_model import load_reward_model, scores
from tests.by_hand import events, run_by_hand, try_by_hand
from tests.stages.toy_chat import write_model
from tests.stages.toy_pairs import card_of, curve, kill_after_checkpoint, preferences, said, write_pairs

METHODS = ({"method": "full"}, {"method": "lora", "r": 4}, {"method": "qlora", "r": 4})
KILLED = [METHODS[0], *(pytest.param(weights, marks=pytest.mark.slow) for weights in METHODS[1:])]
"""Weights whose training is killed: the adapters in the slow tests."""


def config_of(**changes: Any) -> RewardConfig:
    small = {
        "learning_rate": 3e-3, "batch_size": 16, "micro_batch_size": 8, "max_length": 128, "threads": 1,
        "logging_steps": 1, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return RewardConfig.model_validate(small | changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("reward") / "base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_pairs(tmp_path_factory.mktemp("reward") / "data", preferences(96), preferences(24, 200))


# What is learnt


@pytest.mark.parametrize("weights", METHODS)
def test_two_runs_give_equal_bytes_and_held_out_pairs_are_told_apart(
    tmp_path: Path, base: Model, data: Dataset, weights: dict[str, Any]
) -> None:
    rate = 3e-3 if weights["method"] == "full" else 1e-2
    config = config_of(weights=weights, learning_rate=rate, epochs=2)
    made = [run(config, RewardInputs(base=base, preferences=data), Out(tmp_path / n)).reward for n in ("a", "b/c")]
    assert made[0].digest == made[1].digest and made[0].stop_ids == base.stop_ids
    card = card_of(tmp_path / "a")
    assert card["held_out"]["accuracy"]["value"] >= 0.9 and card["held_out"]["accuracy"]["pairs"] == 24
    assert set(card["held_out"]["tasks"]) == {"colour.0", "colour.1"}
    assert card["method"] == weights["method"]
    assert len(curve(tmp_path / "a", "loss")) == 12 and len(curve(tmp_path / "a", "validation_accuracy")) == 2
    for file in made[0].path.iterdir():
        assert file.suffix not in {".bin", ".pt", ".md"}
        assert str(tmp_path).encode() not in file.read_bytes() and str(base.path).encode() not in file.read_bytes()


@pytest.mark.parametrize("weights", METHODS)
def test_plain_transformers_gives_the_same_scores(
    tmp_path: Path, base: Model, data: Dataset, weights: dict[str, Any]
) -> None:
    made = run(config_of(weights=weights, max_steps=3), RewardInputs(base=base, preferences=data), Out(tmp_path)).reward
    plain = AutoModelForSequenceClassification.from_pretrained(made.path).eval()
    assert plain.config.num_labels == 1 and plain.config.pad_token_id != ChatFormat.load(made.path).end_of_turn
    pairs = read_pairs(data, "test", ChatFormat.load(made.path), 128).kept
    packed = scores(load_reward_model(made, "fp32"), scored_row(pairs)).detach()
    rows = [pair.prompt + pair.answers[side].ids for side in (0, 1) for pair in pairs]
    width = max(map(len, rows))
    padded = torch.tensor([ids + [plain.config.pad_token_id] * (width - len(ids)) for ids in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows])
    with torch.no_grad():
        stock = plain(input_ids=padded, attention_mask=mask).logits[:, 0]
    torch.testing.assert_close(packed, stock, rtol=1e-4, atol=1e-5)


def test_a_prompt_that_both_answers_share_changes_no_gradient(base: Model, data: Dataset) -> None:
    pairs = read_pairs(data, "train", ChatFormat.load(base.path), 128).kept[:6]
    gradients = []
    for shared in (True, False):
        torch.manual_seed(0)
        model = load_reward_model(base, "fp32")
        if shared:
            made = scores(model, scored_row(pairs))
        else:
            rows = [pair.prompt + pair.answers[side].ids for side in (0, 1) for pair in pairs]
            made = torch.cat(
                [model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1:])[0] for ids in rows]
            )
        torch.nn.functional.softplus(made[6:] - made[:6]).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    row = scored_row(pairs)
    assert row["input_ids"].shape[1] == sum(pair.tokens for pair in pairs)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5)


def test_micro_batches_do_not_change_what_is_learnt(tmp_path: Path, base: Model, data: Dataset) -> None:
    made = []
    for size in (16, 1):
        out = Out(tmp_path / str(size))
        run(
            config_of(micro_batch_size=size, max_steps=4, max_length=64), RewardInputs(base=base, preferences=data), out
        )
        made.append(curve(tmp_path / str(size), "loss"))
    np.testing.assert_allclose(made[0], made[1], atol=1e-4)


def test_muon_learns_too(tmp_path: Path, base: Model, data: Dataset) -> None:
    for weights in METHODS[:2]:
        config = config_of(optimizer="muon", weights=weights, epochs=2)
        run(config, RewardInputs(base=base, preferences=data), Out(tmp_path / weights["method"]))
        loss = curve(tmp_path / weights["method"], "loss")
        assert loss[-1] < 0.8 * loss[0]


# What is refused


def test_rows_that_cannot_be_compared_are_counted_with_their_ids(tmp_path: Path, base: Model) -> None:
    rows = preferences(24)
    rows[3] = said(rows[3], "chosen", rows[3]["rejected"][0]["content"])
    rows[5] = said(rows[5], "rejected", " ")
    rows[6] = rows[6] | {"chosen": []}
    rows[7] = said(rows[7], "chosen", "word " * 200)
    data = write_pairs(tmp_path / "data", rows, rows[:4])
    run(config_of(max_steps=1), RewardInputs(base=base, preferences=data), Out(tmp_path / "out"))
    card = card_of(tmp_path / "out")
    assert card["pairs"] == {
        "kept": 20,
        "refused": {
            "chosen equals rejected": {"rows": 1, "samples": ["row-3"]},
            "longer than max_length (128 tokens)": {"rows": 1, "samples": ["row-7"]},
            "the chosen answer is empty": {"rows": 1, "samples": ["row-6"]},
            "the rejected answer is empty": {"rows": 1, "samples": ["row-5"]},
        },
    }
    assert card["held_out"]["refused"]["chosen equals rejected"]["samples"] == ["row-3"]


def test_a_set_with_nothing_to_compare_is_refused(tmp_path: Path, base: Model) -> None:
    rows = [said(row, "chosen", row["rejected"][0]["content"]) for row in preferences(5)]
    data = write_pairs(tmp_path / "data", rows)
    code, errors = try_by_hand(tmp_path / "out", "reward", config_of(), RewardInputs(base=base, preferences=data))
    assert code == 2 and "5 x chosen equals rejected (row-0" in errors


def test_all_turns_before_the_answers_are_kept(base: Model, data: Dataset) -> None:
    chat = ChatFormat.load(base.path)
    pair = read_pairs(data, "train", chat, 128).kept[0]
    assert chat.decode(pair.prompt, control=True) == (
        "<|im_start|>user\nDo you count by six?<|im_end|>\n<|im_start|>assistant\nI do.<|im_end|>\n"
        "<|im_start|>user\nWhich colour is number 0?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.decode(pair.chosen.ids, control=True) == "It is red.<|im_end|>"
    assert pair.chosen.ids[-1] == chat.end_of_turn and all(pair.chosen.trained)


def test_only_what_the_assistant_says_is_scored_in_answers_of_several_turns(tmp_path: Path, base: Model) -> None:
    row = preferences(1)[0]
    row["chosen"] = [*row["chosen"], {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    chat = ChatFormat.load(base.path)
    pair = read_pairs(write_pairs(tmp_path / "data", [row]), "train", chat, 128).kept[0]
    scored = [i for i, trained in zip(pair.chosen.ids, pair.chosen.trained, strict=True) if trained]
    assert chat.decode(scored, control=True) == "It is red.<|im_end|>Yes.<|im_end|>"
    assert len(predicted_row([pair])["logits_to_keep"]) == len(scored) + len(pair.rejected.ids)


# What is measured


def test_measures_say_what_they_mean() -> None:
    margins = np.array([2.0, 1.0, -0.5, 0.0])
    found = accuracy(margins)
    assert found["value"] == 0.625 and found["low"] < 0.625 < found["high"]
    draw = np.random.default_rng(0)
    odds = draw.normal(0, 2, 20_000)
    honest = np.where(draw.random(20_000) < 1 / (1 + np.exp(-odds)), odds, -odds)  # people agree as often as odds say
    assert calibration(honest)[1] < 0.02 and calibration(honest * 4)[1] > 0.1
    assert sum(row["pairs"] for row in calibration(honest)[0]) == 20_000
    lengths = draw.integers(5, 50, (500, 2)).astype(float)
    paid = length_bias(lengths * 0.1, lengths)
    assert paid["correlation"] > 0.99 and paid["chosen_shorter"]["value"] == 0 and paid["chosen_longer"]["value"] == 1
    assert abs(length_bias(draw.normal(size=(500, 2)), lengths)["margin_correlation"]) < 0.15


# What survives


@pytest.mark.kill
@pytest.mark.parametrize("weights", KILLED, ids=lambda w: w["method"])
def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path: Path, base: Model, data: Dataset, weights: dict[str, Any]
) -> None:
    config = config_of(epochs=2, checkpoint_every=4, weights=weights)
    inputs = RewardInputs(base=base, preferences=data)
    whole = run(config, inputs, Out(tmp_path / "whole"))
    kill_after_checkpoint(tmp_path / "killed", "reward", config, inputs, step=4)
    went_on, result = run_by_hand(tmp_path / "killed", "reward", config, inputs)
    assert any("going on from step" in e["text"] for e in events(tmp_path / "killed") if e["event"] == "log")
    assert went_on.reward.digest == whole.reward.digest
    assert result.metrics["pair_accuracy"] > 0.5
