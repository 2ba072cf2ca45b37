"""dpo: what moves and what holds it, in which memory, what is refused, what is reproducible, what survives a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset as Rows
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig as TRLConfig
from trl.trainer.dpo_trainer import DPOTrainer

from containers.contract import Adapter, Dataset, Model
from containers.dpo.contract import DPOConfig, DPOInputs
from containers.dpo.main import run
from containers.dpo.reference import KEPT, log_probs_of, strangers_of
from containers.formats import ChatFormat
from containers.models import load_model
from containers.out import Out
from containers.pairs.rows import read_pairs
from containers.policy import packed
from tests.by_hand import events, run_by_hand, try_by_hand
from tests.stages.toy_chat import write_model
from tests.stages.toy_pairs import card_of, curve, kill_after_checkpoint, preferences, said, write_pairs

METHODS = ({"method": "full"}, {"method": "lora", "r": 4}, {"method": "qlora", "r": 4})


def config_of(**changes: Any) -> DPOConfig:
    small = {
        "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 8, "max_length": 128, "threads": 1,
        "logging_steps": 1, "device": "cpu", "precision": "fp32", "schedule": "constant",
    }  # fmt: skip
    return DPOConfig.model_validate(small | changes)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("dpo") / "policy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_pairs(tmp_path_factory.mktemp("dpo") / "data", preferences(64), preferences(24, 200))


# What is learnt


@pytest.mark.parametrize("loss", ["dpo", "ipo", "kto"])
@pytest.mark.parametrize("weights", METHODS)
def test_two_runs_give_equal_bytes_and_held_out_pairs_are_preferred(
    tmp_path: Path, policy: Model, data: Dataset, weights: dict[str, Any], loss: str
) -> None:
    rate = 1e-3 if weights["method"] == "full" else 1e-2
    config = config_of(weights=weights, learning_rate=rate, epochs=3, loss=loss)
    runs = ("a", "b/c") if loss == "dpo" else ("a",)
    made = [run(config, DPOInputs(policy=policy, preferences=data), Out(tmp_path / n)).model for n in runs]
    assert len({m.digest for m in made}) == 1 and made[0].digest != policy.digest
    assert isinstance(made[0], Model if weights["method"] == "full" else Adapter)
    card = card_of(tmp_path / "a")
    assert card["algorithm"] == loss and card["held_out"]["accuracy"]["value"] >= 0.9 and card["margin"] > 0
    assert len(curve(tmp_path / "a", "loss")) == 12 and len(curve(tmp_path / "a", "validation_chosen_log_prob")) == 3
    if weights["method"] != "full":
        assert not any("ref" in file.name for file in made[0].path.iterdir())  # one adapter, not TRL's copy beside it
    for file in made[0].path.iterdir():
        assert file.suffix not in {".bin", ".pt", ".md"}
        assert str(tmp_path).encode() not in file.read_bytes() and str(policy.path).encode() not in file.read_bytes()


class Rendered(DPOTrainer):
    """TRL's trainer as it is, but for the rendering of rows: they hold token ids already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


@pytest.mark.parametrize(("loss", "weight"), [("dpo", 0.0), ("ipo", 0.0), ("dpo", 0.7)])
def test_losses_are_those_of_a_stock_dpo_trainer(
    tmp_path: Path, policy: Model, data: Dataset, loss: str, weight: float
) -> None:
    """The same pairs in the same order: TRL pads, keeps a frozen copy and runs both; we do not."""
    config = config_of(loss=loss, nll_weight=weight, max_steps=4, batch_size=4, micro_batch_size=4)
    run(config, DPOInputs(policy=policy, preferences=data), Out(tmp_path / "ours"))
    pairs = read_pairs(data, "train", ChatFormat.load(policy.path), 128).kept
    order = np.random.default_rng([config.seed, 0]).permutation(len(pairs))[:16]
    rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen.ids, "rejected_ids": p.rejected.ids}
            for p in (pairs[i] for i in order)]  # fmt: skip
    losses = {{"dpo": "sigmoid"}.get(loss, loss): 1.0} | ({"sft": weight} if weight else {})
    arguments = TRLConfig(
        output_dir=str(tmp_path / "stock"), per_device_train_batch_size=4, max_steps=4, learning_rate=1e-3,
        lr_scheduler_type="constant_with_warmup", loss_type=list(losses), loss_weights=list(losses.values()),
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to="none", use_cpu=True,
        bf16=False, gradient_checkpointing=False, disable_tqdm=True, optim="adamw_torch_fused",
    )  # fmt: skip
    trainer = Rendered(
        AutoModelForCausalLM.from_pretrained(policy.path), AutoModelForCausalLM.from_pretrained(policy.path),
        arguments, train_dataset=Rows.from_list(rows), processing_class=AutoTokenizer.from_pretrained(policy.path),
    )  # fmt: skip
    trainer.train()
    stock = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    margins = [entry["rewards/margins"] for entry in trainer.state.log_history if "loss" in entry]
    np.testing.assert_allclose(curve(tmp_path / "ours", "loss"), stock, rtol=1e-3)
    np.testing.assert_allclose(curve(tmp_path / "ours", "margin"), margins, rtol=1e-2, atol=1e-3)


def test_log_probabilities_are_those_of_each_answer_alone(policy: Model, data: Dataset) -> None:
    pairs = read_pairs(data, "train", ChatFormat.load(policy.path), 128).kept[:8]
    found = log_probs_of(packed(load_model(policy, "fp32")), pairs, budget=100)
    plain = load_model(policy, "fp32")
    for pair, sums in zip(pairs, found, strict=True):
        for answer, ours in zip(pair.answers, sums, strict=True):
            ids = torch.tensor([pair.prompt + answer.ids])
            with torch.no_grad():
                log_probs = plain(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            assert float(log_probs[len(pair.prompt) - 1 :].sum()) == pytest.approx(float(ours), rel=1e-4)


def test_micro_batches_do_not_change_what_is_learnt(tmp_path: Path, policy: Model, data: Dataset) -> None:
    made = []
    for size in (16, 1):
        config = config_of(micro_batch_size=size, max_steps=4, max_length=64)
        run(config, DPOInputs(policy=policy, preferences=data), Out(tmp_path / str(size)))
        made.append(curve(tmp_path / str(size), "gradient_norm"))
    np.testing.assert_allclose(made[0], made[1], rtol=1e-2)


def test_muon_learns_too(tmp_path: Path, policy: Model, data: Dataset) -> None:
    run(config_of(optimizer="muon", epochs=2), DPOInputs(policy=policy, preferences=data), Out(tmp_path))
    assert curve(tmp_path, "loss")[-1] < 0.9 * curve(tmp_path, "loss")[0]


def test_a_large_beta_holds_the_policy(tmp_path: Path, policy: Model, data: Dataset) -> None:
    moved = []
    for beta in (0.05, 5.0):
        run(config_of(beta=beta, epochs=3), DPOInputs(policy=policy, preferences=data), Out(tmp_path / str(beta)))
        moved.append(card_of(tmp_path / str(beta))["margin"] / beta)
    assert moved[1] < 0.7 * moved[0]


def test_strangers_are_other_prompts_answers_within_the_length(policy: Model, data: Dataset) -> None:
    pairs = read_pairs(data, "train", ChatFormat.load(policy.path), 128).kept[:6]
    longest = max(pair.longest for pair in pairs)
    strange = strangers_of(pairs, longest)
    assert all(pair.prompt == other.prompt for pair, other in zip(pairs, strange, strict=True))
    assert strange[-1].chosen.ids == pairs[0].chosen.ids[: longest - len(pairs[-1].prompt)]
    assert max(pair.longest for pair in strange) <= longest


# What is refused


def test_a_set_with_nothing_to_compare_is_refused(tmp_path: Path, policy: Model) -> None:
    rows = [said(row, "rejected", "") for row in preferences(5)]
    data = write_pairs(tmp_path / "data", rows)
    code, errors = try_by_hand(tmp_path / "out", "dpo", config_of(), DPOInputs(policy=policy, preferences=data))
    assert code == 2 and "5 x the rejected answer is empty (row-0" in errors


def test_no_held_out_rows_are_no_reason_to_fail(tmp_path: Path, policy: Model) -> None:
    data = write_pairs(tmp_path / "data", preferences(8))
    run(config_of(max_steps=1), DPOInputs(policy=policy, preferences=data), Out(tmp_path / "out"))
    assert card_of(tmp_path / "out")["held_out"] == {"kept": 0, "refused": {}}


# What survives


@pytest.mark.kill
@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"loss": "kto"}, marks=pytest.mark.slow),
        pytest.param({"weights": {"method": "lora", "r": 4}}, marks=pytest.mark.slow),
        pytest.param({"weights": {"method": "qlora", "r": 4}}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "muon"}, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path: Path, policy: Model, data: Dataset, changes: dict[str, Any]
) -> None:
    config = config_of(epochs=3, checkpoint_every=4, **changes)
    inputs = DPOInputs(policy=policy, preferences=data)
    whole = run(config, inputs, Out(tmp_path / "whole"))
    kill_after_checkpoint(tmp_path / "killed", "dpo", config, inputs, step=4)
    assert (tmp_path / "killed/work" / f"pairs-{KEPT}").is_file()
    went_on, result = run_by_hand(tmp_path / "killed", "dpo", config, inputs)
    assert any("going on from step" in e["text"] for e in events(tmp_path / "killed") if e["event"] == "log")
    assert went_on.model.digest == whole.model.digest
    assert result.metrics["pair_accuracy"] > 0.5
