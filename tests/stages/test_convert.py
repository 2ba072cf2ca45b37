"""convert: a LoRA adapter beside its base in llama.cpp says what it says in transformers; others are refused."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from containers.adapters import add_adapter, save_adapter
from containers.contract import Adapter, Model, StageError
from containers.convert.contract import ConvertInputs
from containers.convert.lora import write_adapter
from containers.convert.main import run
from containers.formats import ChatFormat
from containers.models import load_model
from containers.out import Out
from containers.quantize.gguf_writer import Checkpoint, paired, write_gguf
from containers.quantize.measuring import given_tokens
from containers.serve.backends.llama_cpp import load
from containers.serve.contract import ServeConfig
from containers.unmerged import Lineup
from containers.weights import LowRank
from tests.by_hand import run_by_hand
from tests.small_adapters import CONFIG, convert_inputs, small_adapters
from tests.stages.toy_chat import write_model

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, wide heads": ("llama", {"head_dim": 32, "num_key_value_heads": 4, "tie_word_embeddings": False}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
}


def random_adapter(base: Model, folder: Path, seed: int, **changes: Any) -> Adapter:
    """Write an adapter of random matrices, large enough to change every probability."""
    config = LowRank(r=4, alpha=8.0, dropout=0.0).revise(**changes)
    model = add_adapter(load_model(base, "fp32"), config, seed)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.3
    return save_adapter(model, folder, base, {"precision": "fp32", "quantization": None})


class Beside:
    """A toy base as gguf in llama.cpp, with two random adapters beside it."""

    def __init__(self, folder: Path, shape: str, changes: dict[str, Any]) -> None:
        self.folder = folder
        self.base = write_model(folder / "base", shape, **changes)
        self.adapters = [random_adapter(self.base, folder / name, seed) for seed, name in enumerate("ab")]
        write_gguf(self.base.path, folder / "base.gguf", "f16")
        for name in "ab":
            write_adapter(self.base.path, folder / name, folder / f"{name}.gguf")
        chat = ChatFormat.load(self.base.path)
        plain = sorted(set(range(chat.tokenizer.get_vocab_size())) - given_tokens(chat))
        self.ids = [plain[i] for i in torch.randint(0, len(plain), (40,)).tolist()]

    def server(self) -> Any:
        config = ServeConfig(slots=1, threads=1)
        return load(self.folder / "base.gguf", config, 128, [self.folder / f"{name}.gguf" for name in "ab"])

    def in_transformers(self, scales: tuple[int, ...]) -> np.ndarray:
        """Return the log-probability of each token but the first, with the adapters that `scales` switches on."""
        model = AutoModelForCausalLM.from_pretrained(self.base.path, dtype=torch.float32)
        taught = PeftModel.from_pretrained(model, self.folder / "a", adapter_name="a")
        taught.load_adapter(self.folder / "b", adapter_name="b")
        on = [name for name, scale in zip("ab", scales, strict=True) if scale]
        if on:
            taught.base_model.set_adapter(on)
        else:
            taught.base_model.disable_adapter_layers()
        with torch.inference_mode():
            logits = taught(input_ids=torch.tensor([self.ids])).logits[0, :-1]
        said = torch.log_softmax(logits, -1).gather(1, torch.tensor(self.ids)[1:, None])[:, 0]
        return np.array(said.tolist())

    def in_llama_cpp(self, server: Any, scales: tuple[int, ...] | None, **more: Any) -> tuple[np.ndarray, int]:
        """Return the same by llama.cpp, and how many tokens of the prompt it took from its cache."""
        only = "root ::= " + " ".join(f"<[{token}]>" for token in self.ids[1:])
        asked = {"prompt": self.ids[:1], "max_tokens": len(self.ids) - 1, "grammar": only, "temperature": 0}
        asked |= {"logprobs": 1, **more}
        if scales is not None:
            asked["lora"] = [{"id": number, "scale": float(scale)} for number, scale in enumerate(scales)]
        answer = server.handle_completions(asked)
        tokens = answer["choices"][0]["logprobs"]["content"]
        return np.array([token["logprob"] for token in tokens]), answer["timings"]["cache_n"]


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_probabilities_as_in_transformers(name: str, tmp_path: Path) -> None:
    """Of the base, of each adapter, and of both added up."""
    toy = Beside(tmp_path, *SHAPES[name])
    server = toy.server()
    found = {}
    for scales in ((0, 0), (1, 0), (0, 1), (1, 1)):
        found[scales], _ = toy.in_llama_cpp(server, scales)
        assert found[scales] == pytest.approx(toy.in_transformers(scales), abs=0.05)
    for scales in ((1, 0), (0, 1), (1, 1)):
        assert np.abs(found[scales] - found[0, 0]).max() > 0.2, "the adapter is no different from its base"


def test_rows_in_the_wrong_order_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "reordered", lambda self, name, values: values)
    toy = Beside(tmp_path, "llama", {})
    monkeypatch.undo()
    write_gguf(toy.base.path, tmp_path / "base.gguf", "f16")
    found, _ = toy.in_llama_cpp(toy.server(), (1, 0))
    assert np.abs(found - toy.in_transformers((1, 0))).max() > 0.2


@pytest.mark.parametrize(("shape", "reordered"), [("llama", True), ("qwen2", False)])
def test_query_and_key_rows_are_reordered_as_the_bases_are(shape: str, reordered: bool, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", shape)
    random_adapter(base, tmp_path / "a", 1)
    write_adapter(base.path, tmp_path / "a", tmp_path / "a.gguf")
    reader = GGUFReader(tmp_path / "a.gguf")
    told = {key: reader.get_field(key).contents() for key in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert told == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    source = load_file(tmp_path / "a/adapter_model.safetensors")
    assert len(tensors) == len(source) == 2 * 2 * 7  # A and B, 2 layers, 7 matrices
    place = "base_model.model.model.layers.1.self_attn."
    for ours, theirs, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2), ("attn_v", "v_proj", 0)):
        for factor in "ab":
            wanted = source[f"{place}{theirs}.lora_{factor.upper()}.weight"].numpy()
            wanted = paired(wanted, heads) if reordered and heads and factor == "b" else wanted
            assert np.array_equal(tensors[f"blk.1.{ours}.weight.lora_{factor}"], wanted)


def test_a_cache_of_other_adapters_is_not_used(tmp_path: Path) -> None:
    """One slot, one prompt, the adapters in turn: what llama.cpp kept of one is of no use to another."""
    toy = Beside(tmp_path, "llama", {})
    server = toy.server()
    prompt, rest = toy.ids[:30], toy.ids[30:]
    only = "root ::= " + " ".join(f"<[{token}]>" for token in rest)
    asked = {"prompt": prompt, "max_tokens": len(rest), "grammar": only}
    sets = ((0, 0), (1, 0), (0, 1))
    fresh = {scales: toy.in_llama_cpp(server, scales, **asked, cache_prompt=False)[0] for scales in sets}
    before = None
    for scales in (*sets, *reversed(sets), *sets, (0, 1)):
        found, reused = toy.in_llama_cpp(server, scales, **asked)
        assert (reused > 0) == (scales == before), f"{reused} tokens of {before} were reused for {scales}"
        assert found == pytest.approx(fresh[scales], abs=1e-3)
        before = scales
    # Why the service names every adapter in every request: one that names none is answered from the last one's cache.
    _, reused = toy.in_llama_cpp(server, None, **asked)
    assert reused > 0, "llama.cpp has mended this: see serve/backends/llama_cpp.py"


def test_the_folder_is_the_same_again_and_tells_what_it_holds(tmp_path: Path) -> None:
    inputs = convert_inputs(tmp_path / "whole")
    made, result = run_by_hand(tmp_path / "one", "convert", CONFIG, inputs)
    again, _ = run_by_hand(tmp_path / "another/deep", "convert", CONFIG, inputs)
    assert made.adapters.digest == again.adapters.digest
    assert (made.adapters.base, made.adapters.whole) == (inputs.base.digest, inputs.whole.digest)
    folder = made.adapters.path
    lineup = Lineup.read(folder)
    assert (lineup.models, lineup.last) == ({"driver": ("driver",), "clerk": ("clerk",)}, "clerk")
    made_of = json.loads((folder / "driver/made_of.json").read_text())
    assert made_of["adapters"] == [{"name": "driver", "digest": small_adapters()["driver"].digest}]
    size = (folder / "driver.gguf").stat().st_size
    assert size < 0.7 * sum(f.stat().st_size for f in inputs.base.path.glob("*.safetensors"))
    assert result.metrics["nats_from_whole"] < 0.05


def test_models_apart_that_are_not_the_merged_one_fail(tmp_path: Path) -> None:
    inputs = convert_inputs(tmp_path / "whole").revise(last="driver")
    with pytest.raises(ArithmeticError, match="not the ones that it was merged from"):
        run(CONFIG, inputs, Out(tmp_path / "out"))


def with_settings(adapter: Adapter, folder: Path, name: str, **changes: Any) -> Adapter:
    shutil.copytree(adapter.path, folder)
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(values | changes))
    return adapter.revise(path=folder)


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (
            "trained_on.json",
            {"quantization": {"load_in_4bit": True}},
            "fits no 16-bit base: train it with lora, or merge",
        ),
        ("adapter_config.json", {"use_dora": True}, "use_dora is True, which llama.cpp cannot add to a base"),
        ("adapter_config.json", {"bias": "all"}, "bias is 'all'"),
        ("adapter_config.json", {"r": 9}, "and the base's matrix"),
    ],
    ids=["qlora", "dora", "bias", "rank"],
)
def test_an_adapter_that_cannot_be_kept_apart_is_refused(
    tmp_path: Path, file: str, changes: dict[str, Any], said: str
) -> None:
    inputs = convert_inputs(tmp_path / "whole")
    clerk = with_settings(small_adapters()["clerk"], tmp_path / "clerk", file, **changes)
    with pytest.raises(StageError, match=re.escape(said)):
        run(CONFIG, inputs.revise(adapters={**inputs.adapters, "clerk": clerk}), Out(tmp_path / "run"))


def test_another_base_and_a_stranger_among_the_matrices_are_refused(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", hidden_size=32, num_attention_heads=2)
    other = random_adapter(base, tmp_path / "other", 1)
    whole = convert_inputs(tmp_path / "whole")
    with pytest.raises(StageError, match="the adapter other was trained on base"):
        given = whole.revise(adapters={"other": other}, models={"other": ("other",)}, last="other")
        run(CONFIG, given, Out(tmp_path / "out"))
    file = tmp_path / "other/adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name.replace("layers.1.", "layers.7."): value for name, value in tensors.items()}, file)
    with pytest.raises(StageError, match=r"layers\.7.* belongs to no matrix of the base"):
        write_adapter(base.path, tmp_path / "other", tmp_path / "other.gguf")


def test_models_of_adapters_that_are_not_there_are_refused(tmp_path: Path) -> None:
    given = convert_inputs(tmp_path / "whole")
    with pytest.raises(ValueError, match="stranger"):
        ConvertInputs(**{**dict(given), "models": {"clerk": ("clerk", "stranger")}})


def test_llama_cpp_refuses_an_adapter_of_another_base(tmp_path: Path) -> None:
    toy = Beside(tmp_path, "llama", {})
    other = write_model(Path(tempfile.mkdtemp(dir=tmp_path)) / "m", hidden_size=32, num_attention_heads=2)
    random_adapter(other, tmp_path / "other", 1)
    write_adapter(other.path, tmp_path / "other", tmp_path / "b.gguf")
    with pytest.raises(StageError, match=r"cannot load .*with a\.gguf with b\.gguf.*and the adapters its own"):
        toy.server()


def test_checkpoint_orders_only_what_llama_cpp_orders(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", "llama")
    values = np.arange(64 * 3, dtype=np.float32).reshape(64, 3)
    checkpoint = Checkpoint(base.path)
    assert np.array_equal(checkpoint.reordered("blk.0.attn_q.weight", values), paired(values, 4))
    assert checkpoint.reordered("blk.0.attn_output.weight", values) is values
