"""Every architecture that converts can be trained on: continued, fine-tuned, adapted and merged, none leaking."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from containers.contract import CONVERTIBLE, Adapter, Model, StageError, Tokenizer
from containers.formats import ChatFormat, identity_of
from containers.merge.contract import STAGE as MERGE
from containers.merge.contract import MergeInputs
from containers.merge.main import run as merge
from containers.model_folder import check_model
from containers.out import Out
from containers.packing import Narrowing, attend_packed, lay_out
from containers.pretrain.contract import PretrainConfig, PretrainInputs
from containers.pretrain.engine import Engine
from containers.pretrain.main import run as pretrain
from containers.pretrain.packing import Rows
from containers.pretrain.shape import load
from containers.pretrain.tokens import Documents
from containers.sft.contract import SFTInputs
from containers.sft.lessons import read_lessons
from containers.sft.main import run as sft
from tests.stages.small_corpus import small_corpus
from tests.stages.test_sft import config_of
from tests.stages.toy_chat import chats, write_chats, write_model

SHAPES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
SHAPES |= {"MistralForCausalLM": "mistral"}
FURTHER = PretrainConfig(
    sequence_length=64, max_tokens=6_000, batch_size=8, micro_batch_size=8, learning_rate=3e-3,
    validation_tokens=1_000, prompt="Ada had", threads=1, compile="off",
)  # fmt: skip
each = pytest.mark.parametrize("name", CONVERTIBLE)


def based(folder: Path, name: str, **changes: object) -> tuple[Model, Tokenizer]:
    model = write_model(folder / "base", SHAPES[name], **changes)
    return model, Tokenizer.of(model.path, **identity_of(model.path))


def architecture(folder: Path) -> str:
    return str(check_model(folder)["architectures"][0])


@each
def test_pretraining_goes_on(tmp_path: Path, name: str) -> None:
    model, tokenizer = based(tmp_path, name)
    inputs = PretrainInputs(corpus=small_corpus(tmp_path / "corpus", 200), tokenizer=tokenizer, start=model)
    made = pretrain(FURTHER, inputs, Out(tmp_path / "out")).model
    bits = json.loads((tmp_path / "out/outputs/card/card.json").read_text())["bits_per_byte"]
    assert bits[-1]["bits_per_byte"] < 0.9 * bits[0]["bits_per_byte"]
    assert architecture(made.path) == name and made.tokenizer == model.tokenizer


@each
def test_packed_text_sees_itself_only(tmp_path: Path, name: str) -> None:
    torch.set_num_threads(1)
    model, tokenizer = based(tmp_path, name)
    engine = Engine(load(model, tokenizer, FURTHER), FURTHER, 1)
    lengths = np.array([20, 17, 12, 9])
    ids = np.random.default_rng(0).integers(3, 390, lengths.sum())
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    rows = Rows(Documents(ids, bounds), 64)
    assert len(rows) == 1
    packed = float(engine.forward(rows.take(np.array([0]), 1)).detach())
    plain = AutoModelForCausalLM.from_pretrained(model.path)
    alone = 0.0
    for first, length in zip(bounds, lengths, strict=False):
        one = torch.from_numpy(ids[first : first + length])[None]
        alone += plain(input_ids=one, labels=one).loss.item() * (length - 1)
    assert packed == pytest.approx(alone, rel=1e-5)


@each
def test_packed_conversations_see_themselves_only(tmp_path: Path, name: str) -> None:
    model, _ = based(tmp_path, name)
    lessons = read_lessons(write_chats(tmp_path / "data", chats(6)), "train", ChatFormat.load(model.path), 128).kept
    plain, packed = (AutoModelForCausalLM.from_pretrained(model.path) for _ in range(2))
    attend_packed(packed, 128)
    Narrowing(packed)
    with torch.no_grad():
        together = packed(**{k: v for k, v in lay_out(lessons).items() if k != "targets"}).logits[0]
        alone = [
            plain(torch.tensor([lesson.ids])).logits[0, [i - 1 for i, t in enumerate(lesson.trained) if t]]
            for lesson in lessons
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@each
def test_fine_tuning_and_an_adapter_merged(tmp_path: Path, name: str) -> None:
    model, _ = based(tmp_path, name)
    inputs = SFTInputs(base=model, instructions=write_chats(tmp_path / "data", chats(24)))
    whole = sft(config_of("full", epochs=1), inputs, Out(tmp_path / "full")).model
    adapter = sft(config_of("lora", epochs=1), inputs, Out(tmp_path / "lora")).model
    assert isinstance(adapter, Adapter)
    taught = MergeInputs(base=model, adapter=adapter)
    merged = merge(MERGE.config(threads=1, device="cpu"), taught, Out(tmp_path / "merge")).model
    assert architecture(whole.path) == architecture(merged.path) == name


def test_a_sliding_window_shorter_than_the_rows_is_refused(tmp_path: Path) -> None:
    model, tokenizer = based(tmp_path, "MistralForCausalLM", sliding_window=32)
    with pytest.raises(StageError, match=r"sequence_length 64 exceeds .* of 32"):
        load(model, tokenizer, FURTHER)
    lessons = write_chats(tmp_path / "data", chats(16))
    with pytest.raises(StageError, match="attention window of 32 tokens"):
        sft(config_of("full"), SFTInputs(base=model, instructions=lessons), Out(tmp_path / "full"))
