"""Packed scores are those of each sequence alone; drawn tokens are drawn as softmax says, and the same twice."""

from pathlib import Path

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from containers.alignment import AlignmentConfig
from containers.generation import Draw, Job, drawn_all
from containers.models import load_model
from containers.out import Out
from containers.policy import Policy, packed
from containers.scoring import IGNORED, answer_packed
from tests.stages.toy_chat import write_model

LENGTHS = ((5, 9), (3, 14), (7, 8))
"""(prompt, whole sequence) of each row."""


def batch(side: str) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    width = max(whole for _, whole in LENGTHS)
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    labels = torch.full((3, width), IGNORED)
    for row, (prompt, whole) in enumerate(LENGTHS):
        first = width - whole if side == "left" else 0
        ids[row, first : first + whole] = torch.randint(3, 400, (whole,), generator=draw)
        mask[row, first : first + whole] = 1
        labels[row, first + prompt : first + whole] = ids[row, first + prompt : first + whole]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", ["llama", "qwen2"])
def test_packed_scores_are_trls_own(tmp_path: Path, side: str, shape: str) -> None:
    source = write_model(tmp_path / "model", shape)
    asked = batch(side)
    trls = load_model(source, "fp32")
    add_fused_lm_head(trls, temperature=0.7, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    positions = (asked["attention_mask"].cumsum(1) - 1).clamp(min=0)  # TRL leaves them to the model, which pads
    wanted = trls(**asked, position_ids=positions, fused_lm_head=True)
    ours = packed(load_model(source, "fp32"))
    answer_packed(ours, temperature=0.7)
    found = ours(**asked, fused_lm_head=True)
    for name in ("log_probs", "entropy", "mean_logits"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-4, atol=1e-5)
    assert torch.equal(found.is_top1, wanted.is_top1)
    found.log_probs.sum().backward()
    wanted.log_probs.sum().backward()
    for mine, other in zip(ours.parameters(), trls.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_a_call_without_fused_head_is_the_models_own(tmp_path: Path) -> None:
    source = write_model(tmp_path / "model")
    ids = torch.arange(3, 20)[None]
    ours = packed(load_model(source, "fp32"))
    answer_packed(ours)
    torch.testing.assert_close(ours(input_ids=ids).logits, load_model(source, "fp32")(input_ids=ids).logits)


@pytest.mark.parametrize("weights", [{"method": "full"}, {"method": "lora", "r": 4}, {"method": "qlora", "r": 4}])
def test_policy_and_reference_agree_until_a_step_is_taken(tmp_path: Path, weights: dict[str, object]) -> None:
    source = write_model(tmp_path / "model")
    config = AlignmentConfig.model_validate({"weights": weights, "precision": "fp32", "device": "cpu", "threads": 1})
    policy = Policy.load(source, config, Out(tmp_path / "stage"))
    ids = torch.arange(3, 20)[None]
    with policy.as_reference() as reference:
        before = reference(input_ids=ids).logits
    assert torch.equal(policy.model(input_ids=ids).logits, before)
    if weights["method"] != "full":
        assert policy.frozen is None
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05
    with policy.as_reference() as reference:
        assert torch.equal(reference(input_ids=ids).logits, before)
    assert not torch.allclose(policy.model(input_ids=ids).logits, before)
    assert policy.save(Out(tmp_path / "stage")).kind == ("model" if weights["method"] == "full" else "adapter")


def test_tokens_are_drawn_as_softmax_says() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    tokens, log_probs = Draw(0.5, seed=3)(logits)
    wanted = torch.softmax(logits[0] / 0.5, -1)
    found = torch.bincount(tokens, minlength=3) / len(tokens)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.015)
    torch.testing.assert_close(log_probs, wanted.log()[tokens])


@pytest.mark.parametrize("is_packed", [False, True])
def test_drawn_answers_carry_the_log_probabilities_of_a_plain_forward(tmp_path: Path, is_packed: bool) -> None:
    model = load_model(write_model(tmp_path / "model"), "fp32")
    model = packed(model) if is_packed else model
    jobs = [Job(list(range(3, 3 + n)), 12, lambda made: made[-1] == 2) for n in (4, 9, 6)]
    drawn = [drawn_all(model, jobs, 8, lambda _: None, Draw(0.9, seed=5)) for _ in range(2)]
    assert [a.ids for a in drawn[0]] == [a.ids for a in drawn[1]]
    for job, answer in zip(jobs, drawn[0], strict=True):
        logits = model(input_ids=torch.tensor([job.ids + answer.ids])).logits[0, len(job.ids) - 1 : -1]
        log_probs = torch.log_softmax(logits / 0.9, -1).gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(answer.log_probs), log_probs, rtol=1e-3, atol=1e-4)
