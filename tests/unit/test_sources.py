"""What a recipe names is found by its content, hashed once, and refused with the nearest right name."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from containers.contract import CONVERTIBLE, Artifact, Dataset, Model, Request, Result, StageError, digest_of
from containers.data.contract import DataConfig, SourceConfig
from containers.entrypoint import stage_named
from infra import digests
from infra.checkpoint import checkpoint_of, context_of, tokenizer_of
from infra.launch import Launch, current_launch, launching
from infra.pins import pins_in
from infra.settings import Settings
from infra.sources import functions_of, pinned, pinned_dataset, resolve
from infra.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    settings = Settings(home=tmp_path / "home")
    runner: Any = SimpleNamespace(close=lambda: None)
    with launching(Launch(settings, Store(settings.store), runner)):
        yield settings.home


def config(*paths: Path | str) -> DataConfig:
    return DataConfig(sources=tuple(SourceConfig(path=str(path)) for path in paths))


def old(file: Path, content: str) -> Path:
    """Write a file that was last changed long ago."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    os.utime(file, (1e9, 1e9))
    return file


def names(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def test_files_folders_and_globs_become_folders_of_links(tmp_path: Path, home: Path) -> None:
    for name in ("a.txt", "sub/b.txt", "sub/c.jsonl", ".hidden", "README.md"):
        old(tmp_path / "data" / name, name)
    data = tmp_path / "data"
    found = resolve(config(data / "a.txt", data, data / "**/*.txt", data / "sub" / "[bc].*"), "corpus")
    assert [names(found[str(i)].path) for i in range(4)] == [
        ["a.txt"],
        ["a.txt", "sub/b.txt", "sub/c.jsonl"],
        ["a.txt", "sub/b.txt"],
        ["b.txt", "c.jsonl"],
    ]
    assert all(files.digest == digest_of(files.path) for files in found.values())
    assert all(home in files.path.parents for files in found.values())


def test_the_same_bytes_have_one_digest_wherever_they_lie(tmp_path: Path, home: Path) -> None:
    one, two = old(tmp_path / "one/a.txt", "same"), old(tmp_path / "two/a.txt", "same")
    first = resolve(config(one), "corpus")["0"]
    one.unlink()
    second = resolve(config(two), "corpus")["0"]
    assert first == second
    assert (second.path / "a.txt").read_text() == "same"
    other = resolve(config(old(tmp_path / "two/a.txt", "more")), "corpus")["0"]
    assert other.digest != first.digest


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = old(tmp_path / "a.txt", "one")
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)
    read: list[Path] = []
    true = digests.digest_of_file
    monkeypatch.setattr(digests, "digest_of_file", lambda f: read.append(f) or true(f))
    first = resolve(config(file), "corpus")
    assert resolve(config(file), "corpus") == first
    assert len(read) == 1
    file.write_text("two")
    os.utime(file, (1e9 + 1, 1e9 + 1))
    assert resolve(config(file), "corpus") != first
    assert len(read) == 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("shakspeare.txt", "did you mean {data}/shakespeare.txt?"),
        ("nowhere/at/all.txt", "{data} has no 'nowhere'"),
        ("*.parquet", "no file matches {data}/*.parquet"),
        ("empty", "holds no data files"),
    ],
)
def test_a_missing_path_names_the_source_and_the_nearest_name(
    tmp_path: Path, home: Path, path: str, words: str
) -> None:
    old(tmp_path / "shakespeare.txt", "words")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError) as caught:
        resolve(config(tmp_path / "shakespeare.txt", tmp_path / path), "corpus")
    assert str(caught.value).startswith("data.corpus.sources.1.path: ")
    assert words.format(data=tmp_path) in str(caught.value)


def test_a_folder_under_hub_is_found_by_content_and_needs_no_commit(tmp_path: Path, home: Path) -> None:
    old(tmp_path / "talk/train.jsonl", "{}")
    local = DataConfig(sources=(SourceConfig(hub=str(tmp_path / "talk")),))
    assert pinned(local) == local
    assert names(resolve(local, "corpus")["0"].path) == ["train.jsonl"]


def checkpoint(folder: Path, kind: str = "llama", vocabulary: int = 400) -> Any:
    """Write a small random checkpoint of its own tokenizer; return how a recipe names it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape["vocab_size"] = vocabulary
    made = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**shape)),
    }[kind]()
    made.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["boats float home"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return SimpleNamespace(path=str(folder), revision=None)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_checkpoint_that_can_be_served_is_a_model(tmp_path: Path, home: Path, kind: str) -> None:
    named = checkpoint(tmp_path / "mine", kind)
    model = checkpoint_of(named)
    assert model.path == tmp_path / "mine"
    assert model.digest == digest_of(tmp_path / "mine")
    assert len(model.stop_ids) == 1 and len(model.tokenizer) == len(model.template) == 64
    assert checkpoint_of(named) == model


def test_a_checkpoints_context_ends_with_its_attention_window(tmp_path: Path, home: Path) -> None:
    named = checkpoint(tmp_path / "mine")
    edited(tmp_path / "mine", max_position_embeddings=512)
    assert context_of(checkpoint_of(named)) == context_of(tokenizer_of(named)) == 512
    edited(tmp_path / "mine", sliding_window=64)
    assert context_of(checkpoint_of(named)) == 64
    edited(tmp_path / "mine", use_sliding_window=False)
    assert context_of(checkpoint_of(named)) == 512


def edited(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def respelt(folder: Path, **parts: Any) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **parts}))


SPOILT = {
    "another architecture": (lambda f: edited(f, architectures=["MambaForCausalLM"]), f"one of: {CONVERTIBLE[0]}"),
    "no context": (lambda f: edited(f, max_position_embeddings=None), "has no max_position_embeddings"),
    "quantized": (lambda f: edited(f, quantization_config={"bits": 4}), "already quantized"),
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "torn config": (lambda f: (f / "config.json").write_text('{"arch'), "config.json: not JSON"),
    "pickle": (lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin is a pickle"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "lacks model.safetensors"),
    "a shard missing": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002.safetensors"}}'),
        "lacks model-00002.safetensors",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
    "another split": (
        lambda f: respelt(f, pre_tokenizer={"type": "Metaspace", "replacement": "_"}),
        "llama.cpp would split text unlike this pre_tokenizer (Metaspace)",
    ),
    "SentencePiece": (
        lambda f: respelt(f, model={"type": "BPE", "byte_fallback": True, "vocab": {}, "merges": []}),
        "only a byte-level BPE can be converted and served, and this is SentencePiece",
    ),
    "no template": (lambda f: (f / "chat_template.jinja").unlink(), "has no chat template"),
    "another tokenizer": (lambda f: edited(f, vocab_size=100), "tokenizer and model do not belong together"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_checkpoint_that_cannot_be_served_is_refused_at_the_start(tmp_path: Path, home: Path, name: str) -> None:
    spoil, words = SPOILT[name]
    named = checkpoint(tmp_path / "mine")
    spoil(tmp_path / "mine")
    for read in (checkpoint_of, tokenizer_of):  # a run, and `slipway check`
        with pytest.raises(StageError, match=re.escape(words)):
            read(named)


def published(store: Store, word: str, kind: type[Artifact], files: Path, **fields: Any) -> str:
    """Publish a folder as what a stage made; return its pin."""
    staged = store.root.parent / "staged"
    shutil.copytree(files, staged / "outputs" / "made")
    made = kind.of(staged / "outputs" / "made", **fields)
    name = next(iter(stage_named(word).outputs.model_fields))
    outputs = {name: made.model_dump(mode="json") | {"path": "outputs/made"}}
    label = str(fields.get("role", ""))
    request = Request(stage=word, label=label, fingerprint="ab" * 32, code="", config={}, inputs={})
    result = Result(stage=word, fingerprint="ab" * 32, outputs=outputs, metrics={}, seconds=1, environment={})
    (staged / "request.json").write_text(request.model_dump_json())
    (staged / "result.json").write_text(result.model_dump_json())
    return f"store:{store.publish(staged).address}"


def test_a_pinned_dataset_is_used_as_it_is(tmp_path: Path, home: Path) -> None:
    store = current_launch().store
    old(tmp_path / "made/train/part-0.parquet", "rows")
    pin = published(store, "data", Dataset, tmp_path / "made", role="instructions", rows={"train": 1})
    found = pinned_dataset(config(pin), "instructions")
    assert found and found.digest == digest_of(tmp_path / "made") and store.root in found.path.parents
    told = [(stage.name, stage.label, stage.status, f"store:{stage.address}") for stage in current_launch().stages]
    assert told == [("data", "instructions", "cached", pin)]
    assert pinned_dataset(config(tmp_path), "instructions") is None
    with pytest.raises(StageError, match="make it the only source"):
        pinned_dataset(config(pin, tmp_path), "instructions")
    with pytest.raises(StageError, match=r"holds instructions: give data.corpus a source of its own"):
        pinned_dataset(config(pin), "corpus")
    with pytest.raises(StageError, match=r"data.corpus.sources.0.path: the store has no data-000"):
        pinned_dataset(config("store:data-000"), "corpus")
    with pytest.raises(StageError, match=r"checkpoint.path: .* is of kind dataset, and a model is needed"):
        checkpoint_of(SimpleNamespace(path=pin, revision=None))


def test_a_pinned_model_is_a_checkpoint(tmp_path: Path, home: Path) -> None:
    mine = checkpoint_of(checkpoint(tmp_path / "mine"))
    identity = {name: getattr(mine, name) for name in ("tokenizer", "template", "stop_ids")}
    pin = published(current_launch().store, "pretrain", Model, mine.path, **identity)
    for named in (pin, f"{pin}/model"):
        model = checkpoint_of(SimpleNamespace(path=named, revision=None))
        assert model.revise(path=mine.path) == mine and current_launch().store.root in model.path.parents
    assert {stage.name for stage in current_launch().stages} == {"pretrain"}
    assert tokenizer_of(SimpleNamespace(path=pin, revision=None)).tokenizer == mine.tokenizer


def test_pins_are_found_wherever_they_stand() -> None:
    recipe = {
        "checkpoint": {"path": "store:a-1"},
        "data": {"corpus": {"sources": [{"path": "x"}, {"path": "store:b"}]}},
    }
    assert dict(pins_in(recipe)) == {"checkpoint.path": "store:a-1", "data.corpus.sources.1.path": "store:b"}


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(tmp_path: Path, home: Path) -> None:
    checkpoint(tmp_path / "my-llama")
    with pytest.raises(StageError, match=r"did you mean .*my-llama"):
        checkpoint_of(SimpleNamespace(path=str(tmp_path / "my-lama"), revision=None))
    with pytest.raises(StageError, match="starts from a checkpoint"):
        checkpoint_of(None)


def test_functions_lie_side_by_side_and_moving_one_changes_nothing(tmp_path: Path, home: Path) -> None:
    one, other = old(tmp_path / "a/mine.py", "x = 1"), old(tmp_path / "b/yours.py", "y = 1")
    found = functions_of({"grpo.rewards.0.path": str(one), "grpo.rewards.1.path": str(other)})
    moved = functions_of({"grpo.rewards.0.path": str(old(tmp_path / "c/mine.py", "x = 1")), "r": str(other)})
    assert found and moved and names(found.path) == ["mine.py", "yours.py"] and found.digest == moved.digest
    module = functions_of({"r": "containers.answers"})
    assert module and names(module.path) == ["answers.py"]
    assert functions_of({}) is None


@pytest.mark.parametrize(
    ("path", "said"),
    [("mien.py", "mine.py"), ("no.such.module", "no module"), ("containers", "give the path of a file")],
)
def test_a_function_that_is_not_there_is_refused_by_place(tmp_path: Path, home: Path, path: str, said: str) -> None:
    old(tmp_path / "mine.py", "x = 1")
    named = str(tmp_path / path) if path.endswith(".py") else path
    with pytest.raises(StageError, match=rf"grpo\.rewards\.0\.path: .*{re.escape(said)}"):
        functions_of({"grpo.rewards.0.path": named})


def test_two_function_files_of_one_name_are_refused(tmp_path: Path, home: Path) -> None:
    one, other = old(tmp_path / "a/mine.py", "x = 1"), old(tmp_path / "b/mine.py", "x = 2")
    with pytest.raises(StageError, match="rename one"):
        functions_of({"r.0": str(one), "r.1": str(other)})
