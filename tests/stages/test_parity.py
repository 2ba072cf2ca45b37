"""package proves that a bundle answers as its 16-bit model does in transformers, and refuses one that does not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from containers.contract import Quantized
from containers.formats import ChatFormat, identity_of
from containers.package.contract import PackageConfig, PackageInputs
from containers.quantize.parent_answers import PROMPTS
from containers.reference import FILE, Reference
from tests.by_hand import run_by_hand, try_by_hand
from tests.small_bundle import small_quantized


@pytest.mark.parametrize("format", ["f16", "q8_0", "q4_0", "bf16", "fp8"])
def test_each_format_is_compared_with_its_parent(tmp_path: Path, format: str) -> None:
    inputs, sixteen = PackageInputs(quantized=small_quantized(format)), format in ("f16", "bf16")
    outputs, result = run_by_hand(tmp_path, "package", PackageConfig(name="small"), inputs)
    parity = json.loads((tmp_path / "outputs/card/card.json").read_text())["parity"]
    assert parity["chats"] == len(PROMPTS) == result.metrics["parity_chats"]
    assert parity["ids_as_transformers"] == len(PROMPTS)
    assert parity["tokens"] > 5 * len(PROMPTS)
    assert parity["mean_nats"] <= parity["allowed_mean_nats"] == (0.02 if sixteen else 0.5)
    assert parity["engine"] == ("transformers" if format in ("bf16", "fp8") else "llama.cpp")
    if sixteen:
        assert parity["answers_equal"] == len(PROMPTS)
    else:
        assert parity["mean_nats"] > 0.0001, "a quantized format that is no different was not measured"
    card = (outputs.bundle.path / "README.md").read_text()
    assert ("same token ids and greedy answers of them" in card) == sixteen


def test_a_stage_folder_may_lie_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "deep/er" / ("and-deeper-" * 9)
    deep.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(deep))  # a socket there would have a path that is too long
    run_by_hand(tmp_path / "stage", "package", PackageConfig(name="small"), PackageInputs(quantized=small_quantized()))


def changed(folder: Path, change: Callable[[Path], None], format: str = "f16") -> Quantized:
    """Return a copy of the quantized model with something wrong about it, recorded as if it were right."""
    shutil.copytree(small_quantized(format).path, folder)
    change(folder)
    return Quantized.of(folder, format=format, parent=small_quantized(format).parent, **identity_of(folder))


def scale_a_tensor(folder: Path) -> None:
    """Make the values of one matrix of the first block three times too large."""
    reader = gguf.GGUFReader(folder / "model.gguf", "r+")
    tensor = next(t for t in reader.tensors if t.name == "blk.0.ffn_down.weight")
    assert tensor.tensor_type.name == "F16"
    values = tensor.data
    values *= np.float16(3)
    reader.data.flush()


def scale_a_layer(folder: Path) -> None:
    """The same of a Hugging Face folder."""
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] *= 3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_exchange(**values: Any) -> Callable[[Path], None]:
    """Return what writes other values into the first exchange of the reference."""

    def change(folder: Path) -> None:
        reference = Reference.read(folder)
        first, *others = reference.exchanges
        reference.revise(exchanges=(first.revise(**values), *others)).write(folder)

    return change


def answer_otherwise(folder: Path) -> None:
    answer = list(Reference.read(folder).exchanges[0].answer)
    word = ChatFormat.load(folder).encode("~")[0]
    count = len(answer)
    with_exchange(answer=tuple([word] * count), log_probs=(-0.1,) * count, margins=(2.0,) * count)(folder)


def of_another_model(folder: Path) -> None:
    Reference.read(folder).revise(parent="f" * 64).write(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (scale_a_tensor, "its 16-bit model"),
        (
            with_exchange(ids=(1, 2, 3)),
            "the bundle makes other tokens of 'What is 2+2?' than its 16-bit model was given",
        ),
        (answer_otherwise, "the bundle answers 'What is 2+2?' otherwise than its 16-bit model in transformers"),
        (of_another_model, "the reference beside the weights is of the model ffffffffffff"),
        (lambda folder: (folder / FILE).unlink(), f"holds no {FILE}"),
    ],
    ids=["weights", "tokens", "answers", "parent", "missing"],
)
def test_a_bundle_that_is_not_its_model_is_refused(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    inputs = PackageInputs(quantized=changed(tmp_path / "quantized", change))
    failed, errors = try_by_hand(tmp_path / "run", "package", PackageConfig(name="small"), inputs)
    assert failed == 2
    assert said in errors
    assert not (tmp_path / "run/result.json").exists()


def test_a_folder_that_is_not_its_model_is_refused(tmp_path: Path) -> None:
    inputs = PackageInputs(quantized=changed(tmp_path / "quantized", scale_a_layer, "bf16"))
    failed, errors = try_by_hand(tmp_path / "run", "package", PackageConfig(name="small"), inputs)
    assert failed == 2
    assert "its 16-bit model" in errors
    assert not (tmp_path / "run/result.json").exists()


def test_a_bound_of_ones_own_refuses_what_is_beyond_it(tmp_path: Path) -> None:
    config = PackageConfig(name="small", max_parity_nats=0.00001)
    failed, errors = try_by_hand(tmp_path, "package", config, PackageInputs(quantized=small_quantized("q4_0")))
    assert failed == 2
    assert "allowed are 1e-05: ship a finer format" in errors


def test_an_unproven_bundle_says_so(tmp_path: Path) -> None:
    quantized = changed(tmp_path / "quantized", lambda folder: (folder / FILE).unlink())
    config = PackageConfig(name="small", prove_parity=False)
    outputs, _ = run_by_hand(tmp_path / "run", "package", config, PackageInputs(quantized=quantized))
    card = json.loads((tmp_path / "run/outputs/card/card.json").read_text())
    assert card["parity"] == "not proven: package.prove_parity is off"
    assert "## Parity" not in (outputs.bundle.path / "README.md").read_text()
