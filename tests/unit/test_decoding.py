"""A Decoder says what the model itself says, for every shape that can be trained here, padded or not."""

from pathlib import Path

import pytest
import torch

from containers.decoding import Decoder
from containers.generation import Draw, Job, drawn_all
from containers.models import load_model
from containers.policy import packed
from tests.stages.toy_chat import write_model

SHAPES = ("llama", "qwen2", "qwen3", "mistral")


def jobs_of(*lengths: int, limit: int = 12) -> list[Job]:
    return [Job(list(range(3, 3 + n)), limit, lambda made: made[-1] == 2) for n in lengths]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lengths", [(4, 9, 6, 9), (5, 5, 5)])
def test_greedy_answers_are_the_models_own(tmp_path: Path, shape: str, lengths: tuple[int, ...]) -> None:
    changes = {"head_dim": 16} if shape == "qwen3" else {}
    model = load_model(write_model(tmp_path / "model", shape, **changes), "fp32")
    for name, parameter in model.named_parameters():  # a fresh model has no biases to speak of
        if "bias" in name or "norm" in name:
            parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 4
    assert Decoder.is_known(model)
    plain = drawn_all(model, jobs_of(*lengths), 8, lambda _: None)
    fast = drawn_all(Decoder(model, torch.float32), jobs_of(*lengths), 8, lambda _: None)
    assert [answer.ids for answer in fast] == [answer.ids for answer in plain]
    for job, answer in zip(jobs_of(*lengths), plain, strict=True):
        alone = model.generate(torch.tensor([job.ids]), max_new_tokens=12, do_sample=False, eos_token_id=2)
        assert answer.ids == alone[0, len(job.ids) :].tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_answers_carry_the_log_probabilities_of_the_model(tmp_path: Path, shape: str) -> None:
    changes = {"head_dim": 16} if shape == "qwen3" else {}
    model = load_model(write_model(tmp_path / "model", shape, **changes), "fp32")
    jobs = jobs_of(4, 9, 9, 6)
    for answer, job in zip(
        drawn_all(Decoder(model, torch.float32), jobs, 8, lambda _: None, Draw(0.9, 5)), jobs, strict=True
    ):
        logits = model(input_ids=torch.tensor([job.ids + answer.ids])).logits[0, len(job.ids) - 1 : -1]
        log_probs = torch.log_softmax(logits / 0.9, -1).gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(answer.log_probs), log_probs, rtol=1e-3, atol=1e-4)


def test_a_decoder_is_brought_up_to_date(tmp_path: Path) -> None:
    model = packed(load_model(write_model(tmp_path / "model"), "fp32"))
    decoder = Decoder(model, torch.float32)
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    before = drawn_all(decoder, jobs_of(5, 8), 8, lambda _: None)
    decoder.take(model)
    after = drawn_all(decoder, jobs_of(5, 8), 8, lambda _: None)
    assert [a.ids for a in after] == [a.ids for a in drawn_all(model, jobs_of(5, 8), 8, lambda _: None)]
    assert [a.ids for a in after] != [a.ids for a in before]


def test_bf16_is_near(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "model"), "fp32")
    exact, near = (
        drawn_all(Decoder(model, dtype), jobs_of(6, 6), 8, lambda _: None, Draw(1.0, 5))
        for dtype in (torch.float32, torch.bfloat16)
    )
    for one, other in zip(exact, near, strict=True):
        if one.ids == other.ids:
            torch.testing.assert_close(one.log_probs, other.log_probs, rtol=0, atol=0.1)
