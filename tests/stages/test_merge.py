"""merge: the adapter's logits, in the weights it was trained on; anything else is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from containers.contract import Adapter, Model, StageError
from containers.merge.contract import STAGE, MergeInputs
from containers.merge.main import run
from containers.models import load_model
from containers.out import Out
from containers.sft.contract import SFTInputs
from containers.sft.main import run as run_sft
from tests.by_hand import run_by_hand
from tests.stages.test_sft import config_of
from tests.stages.toy_chat import chats, write_chats, write_model

CONFIG = STAGE.config(threads=1, device="cpu")


def taught(tmp_path_factory: pytest.TempPathFactory, method: str, dtype: str, shape: str) -> tuple[Model, Adapter]:
    folder = tmp_path_factory.mktemp(method)
    base = write_model(folder / "base", shape=shape, dtype=dtype)
    data = write_chats(folder / "data", chats(32))
    config = config_of(method, epochs=3, learning_rate=3e-3, dropout=0, seed=3)
    adapter = run_sft(config, SFTInputs(base=base, instructions=data), Out(folder / "sft")).model
    assert isinstance(adapter, Adapter)
    return base, adapter


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Adapter]:
    return taught(tmp_path_factory, "lora", "float32", "qwen2")


@pytest.fixture(scope="module")
def qlora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Adapter]:
    return taught(tmp_path_factory, "qlora", "bfloat16", "llama")


def test_an_adapter_with_a_pickle_in_it_is_refused(tmp_path: Path, lora: tuple[Model, Adapter]) -> None:
    base, adapter = lora
    shutil.copytree(adapter.path, tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.bin").write_bytes(b"")
    inputs = MergeInputs(base=base, adapter=adapter.revise(path=tmp_path / "adapter"))
    with pytest.raises(StageError, match=r"adapter_model.bin is a pickle, which runs code when it is read"):
        run(CONFIG, inputs, Out(tmp_path / "merge"))


def test_lora_merges_exactly_and_again_to_the_same_bytes(tmp_path: Path, lora: tuple[Model, Adapter]) -> None:
    base, adapter = lora
    inputs = MergeInputs(base=base, adapter=adapter)
    made, result = run_by_hand(tmp_path / "a", "merge", CONFIG, inputs)
    again = run(CONFIG, inputs, Out(tmp_path / "b/c"))
    assert made.model.digest == again.model.digest
    assert made.model.tokenizer == base.tokenizer and made.model.stop_ids == base.stop_ids
    assert result.metrics["max_logit_difference"] < 1e-4
    assert result.metrics["base_logit_difference"] > 0.1  # the adapter did something
    card = json.loads((tmp_path / "a/outputs/card/card.json").read_text())
    assert card["max_logit_difference"] <= card["tolerance"]
    weights, before = (load_file(m.path / "model.safetensors") for m in (made.model, base))
    assert weights.keys() == before.keys()
    assert not torch.equal(weights["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(weights["model.layers.0.self_attn.q_proj.bias"], before["model.layers.0.self_attn.q_proj.bias"])


def test_qlora_merges_into_the_weights_it_was_trained_on(tmp_path: Path, qlora: tuple[Model, Adapter]) -> None:
    base, adapter = qlora
    made = run(CONFIG, MergeInputs(base=base, adapter=adapter), Out(tmp_path / "out"))
    card = json.loads((tmp_path / "out/outputs/card/card.json").read_text())
    assert card["merged_into"] == "4-bit weights, dequantized"
    merged = load_file(made.model.path / "model.safetensors")
    assert {t.dtype for t in merged.values()} == {torch.bfloat16}  # stored as the base is

    # Added to the original weights instead, the same adapter gives another model: the proof tells them apart.
    plain = json.loads((adapter.path / "trained_on.json").read_text()) | {"quantization": None}
    forged = copied(adapter, tmp_path / "forged", {"trained_on.json": json.dumps(plain).encode()})
    naive = run(CONFIG, MergeInputs(base=base, adapter=forged), Out(tmp_path / "naive"))
    truth = logits(load_model(made.model, "fp32"))
    far = (logits(load_model(naive.model, "fp32")) - truth).abs().max() / truth.std()
    assert far > 2 * card["max_logit_difference"]


def test_another_base_is_refused(tmp_path: Path, lora: tuple[Model, Adapter]) -> None:
    _, adapter = lora
    other = write_model(tmp_path / "other", shape="qwen2", intermediate_size=192)
    with pytest.raises(StageError, match="trained on base"):
        run(CONFIG, MergeInputs(base=other, adapter=adapter), Out(tmp_path / "out"))


def test_a_merge_that_is_not_the_adapter_fails(tmp_path: Path, qlora: tuple[Model, Adapter]) -> None:
    """16-bit rounding is larger than a tolerance of zero: the proof is measured on what was saved."""
    base, adapter = qlora
    with pytest.raises(ArithmeticError, match="not the adapter"):
        run(CONFIG.revise(tolerance=1e-9), MergeInputs(base=base, adapter=adapter), Out(tmp_path / "out"))


def test_an_adapter_that_is_damaged_in_its_identity_is_refused(tmp_path: Path, lora: tuple[Model, Adapter]) -> None:
    base, adapter = lora
    wrong = copied(adapter, tmp_path / "wrong", {"chat_template.jinja": b"{{ messages[0]['content'] }}"})
    with pytest.raises(StageError, match="chat template"):
        run(CONFIG, MergeInputs(base=base, adapter=wrong), Out(tmp_path / "out"))
    stray = copied(adapter, tmp_path / "stray", {})
    (stray.path / "trained_on.json").unlink()
    with pytest.raises(StageError, match="not made by the sft stage"):
        run(CONFIG, MergeInputs(base=base, adapter=stray), Out(tmp_path / "out"))


def test_an_empty_adapter_gives_the_base(tmp_path: Path, lora: tuple[Model, Adapter]) -> None:
    base, adapter = lora
    zeros = copied(adapter, tmp_path / "zeros", {})
    file = zeros.path / "adapter_model.safetensors"
    save_file({n: t * 0 for n, t in load_file(file).items()}, file)
    made = run(CONFIG, MergeInputs(base=base, adapter=zeros), Out(tmp_path / "out"))
    merged, before = (load_file(m.path / "model.safetensors") for m in (made.model, base))
    assert all(torch.equal(merged[name], tensor) for name, tensor in before.items())


def copied(adapter: Adapter, folder: Path, files: dict[str, bytes]) -> Adapter:
    """Return the adapter's files in `folder`, some replaced, under the same identity."""
    folder.mkdir()
    for file in adapter.path.iterdir():
        (folder / file.name).write_bytes(files.get(file.name, file.read_bytes()))
    return adapter.revise(path=folder)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(torch.arange(3, 60)[None]).logits[0]
