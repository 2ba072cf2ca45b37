"""The pretrain stage: nothing leaks between documents, the same bits every time, exact after a kill."""

import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from containers.contract import Model, StageError
from containers.formats import ChatFormat, identity_of
from containers.out import Out
from containers.pretrain.contract import PretrainConfig, PretrainInputs, ShapeConfig
from containers.pretrain.engine import Engine, compiles
from containers.pretrain.main import run
from containers.pretrain.measure import Yardstick, byte_lengths
from containers.pretrain.packing import IGNORED, Order, Rows
from containers.pretrain.schedule import Schedule
from containers.pretrain.shape import build, shape_of
from containers.pretrain.tokens import Documents, tokenize
from containers.tokenizer.contract import TokenizerConfig, TokenizerInputs
from tests.by_hand import ROOT, events, run_by_hand
from tests.stages.small_corpus import dataset_of, small_corpus, stories

TINY = PretrainConfig(
    shape=ShapeConfig(width=32, layers=2, heads=2, kv_heads=1, ffn=64), sequence_length=64, max_tokens=24_000,
    batch_size=8, micro_batch_size=4, validation_tokens=1_000, prompt="Ada had", threads=1, compile="off",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def tokenizer(corpus, tmp_path_factory):
    from containers.tokenizer.main import run as learn

    out = Out(tmp_path_factory.mktemp("tokenizer"))
    return learn(TokenizerConfig(vocab_size=320), TokenizerInputs(corpus=corpus), out).tokenizer


@pytest.fixture(scope="module")
def chat(tokenizer):
    return ChatFormat.load(tokenizer.path)


@pytest.fixture(scope="module")
def inputs(corpus, tokenizer):
    return PretrainInputs(corpus=corpus, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    outputs, result = run_by_hand(folder, "pretrain", TINY, inputs)
    return folder, outputs.model, result


def card_of(folder: Path) -> dict:
    return json.loads((folder / "outputs/card/card.json").read_text())


def documents(*lengths: int) -> Documents:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Documents(np.arange(starts[-1]) % 300, starts)


# Learning


def test_it_learns_and_says_how(trained):
    folder, _, result = trained
    card = card_of(folder)
    assert result.metrics["bits_per_byte"] < 0.6 * result.metrics["first_bits_per_byte"]
    assert [round(point["share"], 1) for point in card["bits_per_byte"]] == [i / 10 for i in range(11)]
    assert [round(point["share"], 1) for point in card["answers"]] == [0.0, 0.1, 0.3, 1.0]
    assert card["answers"][0]["answer"] != card["answers"][-1]["answer"]
    names = {name for event in events(folder) if event["event"] == "metrics" for name in event["values"]}
    assert names == {"loss", "learning_rate", "gradient_norm", "tokens_per_second", "validation_bits_per_byte"}
    assert all({"loss", "tokens_per_second"} <= set(e["figures"]) for e in events(folder) if e.get("unit") == "steps")


def test_the_budget_is_kept_in_trained_tokens(trained):
    plan = card_of(trained[0])["plan"]
    assert plan["steps"] * plan["tokens_per_step"] == pytest.approx(TINY.max_tokens, rel=0.05)
    assert plan["epochs"] == pytest.approx(TINY.max_tokens / plan["epoch_tokens"], rel=0.05)


def test_transformers_loads_the_folder_and_it_is_ready_to_serve(trained, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = trained[1]
    loaded, words = AutoModelForCausalLM.from_pretrained(model.path), AutoTokenizer.from_pretrained(model.path)
    assert loaded.config.model_type == "llama"
    assert loaded.generation_config.eos_token_id == list(model.stop_ids) == list(tokenizer.stop_ids)
    assert (model.tokenizer, model.template) == (tokenizer.tokenizer, tokenizer.template)
    made = loaded.generate(**words("Ada had", return_tensors="pt"), max_new_tokens=48)
    assert words.decode(made[0], skip_special_tokens=True) == "Ada had" + card_of(trained[0])["answers"][-1]["answer"]


def test_nothing_of_this_machine_is_in_the_model(trained):
    for file in trained[1].path.iterdir():
        assert str(trained[0]).encode() not in file.read_bytes()
        assert file.stat().st_mode & 0o444 == 0o444, f"{file.name} is not readable by all"


# The same bits


def test_two_runs_give_the_same_digest(trained, inputs, tmp_path):
    again, _ = run_by_hand(tmp_path, "pretrain", TINY, inputs)
    assert again.model.digest == trained[1].digest


@pytest.mark.kill
def test_a_killed_run_ends_in_the_same_bits(trained, inputs, tmp_path):
    config = TINY.revise(checkpoint_seconds=0.1)
    kill_after_a_checkpoint(tmp_path, config, inputs)
    assert not (tmp_path / "result.json").exists()
    again, _ = run_by_hand(tmp_path, "pretrain", config, inputs)
    assert any("resumed after step" in e["text"] for e in events(tmp_path) if e["event"] == "log")
    assert again.model.digest == trained[1].digest
    assert card_of(tmp_path) == card_of(trained[0])
    assert len(list((tmp_path / "work").glob("checkpoint-????????"))) == 2


def kill_after_a_checkpoint(folder: Path, config: PretrainConfig, inputs: PretrainInputs) -> None:
    """Start the stage in `folder` and kill it, without warning, once it has gone on from a committed checkpoint."""
    from containers.contract import Request
    from tests.by_hand import placed

    request = Request(
        stage="pretrain", label="", fingerprint="0" * 64, code="", config=config.model_dump(mode="json"),
        inputs=placed(inputs, folder),
    )  # fmt: skip
    (folder / "request.json").write_text(request.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-m", "containers.entrypoint", str(folder)], env=environment) as child:
        deadline = time.monotonic() + 120
        while len(list(folder.glob("work/checkpoint-*/COMMIT.json"))) < 2:
            assert child.poll() is None, "the stage ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)


def test_a_checkpoint_of_another_plan_is_refused(inputs, tmp_path):
    config = TINY.revise(max_tokens=2_000)
    run(config, inputs, Out(tmp_path))
    with pytest.raises(StageError, match="another learning_rate"):
        run(config.revise(learning_rate=1e-4), inputs, Out(tmp_path))


@pytest.mark.slow
def test_compiled_runs_give_the_same_digest_and_the_same_loss(trained, inputs, tmp_path):
    config = TINY.revise(compile="on")
    first, result = run_by_hand(tmp_path / "a", "pretrain", config, inputs)
    second, _ = run_by_hand(tmp_path / "b", "pretrain", config, inputs)
    assert first.model.digest == second.model.digest
    assert result.metrics["bits_per_byte"] == pytest.approx(trained[2].metrics["bits_per_byte"], rel=0.02)


# Packing


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=60).filter(lambda n: max(n) > 1))
def test_every_pair_is_packed_once_and_short_documents_stay_whole(lengths):
    wanted = documents(*lengths)
    rows = Rows(Documents(np.arange(sum(lengths)), wanted.starts), 32)
    batch = rows.take(np.arange(len(rows)), len(rows))
    there = batch.targets != IGNORED
    expected = {i for a, n in zip(wanted.starts, lengths, strict=False) for i in range(a, a + n - 1)}
    assert sorted(batch.ids[there].tolist()) == sorted(expected)
    assert torch.equal(batch.targets[there], batch.ids[there] + 1)
    assert torch.equal(batch.segments > 0, there)
    assert rows.tokens == len(expected)
    short = sum(1 for n in lengths if 1 < n <= 33)
    long = sum(math.ceil((n - 1) / 32) for n in lengths if n > 33)
    assert len(rows.size) == short + long


def test_positions_begin_anew_in_each_document():
    batch = Rows(documents(5, 4, 3), 16).take(np.array([0]), 1)
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1] + [0] * 7
    assert batch.segments[0].tolist() == [1] * 4 + [2] * 3 + [3] * 2 + [0] * 7


def test_little_is_padded(corpus, chat, tmp_path):
    rows = Rows(tokenize(corpus, "train", 10**9, chat, Out(tmp_path)), 256)
    assert rows.padding < 0.02


def test_packed_documents_do_not_see_each_other(chat):
    """The loss of documents packed together is the sum of their losses alone."""
    torch.set_num_threads(1)
    engine = Engine(build(TINY, chat), TINY, 1)
    lengths = (20, 17, 12, 9)
    together = documents(*lengths)
    rows = Rows(together, TINY.sequence_length)
    assert len(rows) == 1
    packed = float(engine.forward(rows.take(np.array([0]), 1)).detach())
    alone = 0.0
    for start, length in zip(together.starts, lengths, strict=False):
        one = Documents(together.ids[start : start + length], np.array([0, length]))
        alone += float(engine.forward(Rows(one, length - 1).take(np.array([0]), 1)).detach())
    assert packed == pytest.approx(alone, rel=1e-5)


def test_micro_batches_add_up_to_the_batch(chat):
    torch.set_num_threads(1)
    rows = Rows(documents(*range(3, 60)), TINY.sequence_length)
    numbers = np.arange(8)
    norms = []
    for micro in (8, 2):
        engine = Engine(build(TINY, chat), TINY, 1)
        batches = [rows.take(numbers[i : i + micro], micro) for i in range(0, 8, micro)]
        taken = engine.step(batches, 1e-3)
        norms.append((float(taken.nats), float(taken.gradient_norm)))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_an_epoch_visits_every_row_once_in_another_order():
    order = Order(10, seed=3)
    seen = np.concatenate([order.numbers(step, 4) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert Order(10, seed=3).numbers(3, 4).tolist() == seen[12:16].tolist()


# Numbers derived from the dials


@pytest.mark.parametrize("depth", range(1, 65))
def test_every_depth_gives_a_shape_that_llama_cpp_serves(depth):
    shape = shape_of(depth)
    assert shape.layers == depth
    assert shape.width % shape.heads == 0 and shape.heads % shape.kv_heads == 0
    assert shape.width // shape.heads in (32, 64)
    assert shape.ffn >= shape.width * 8 / 3


def test_the_tiny_depth_has_about_two_million_weights(chat):
    assert shape_of(4) == ShapeConfig(width=192, layers=4, heads=6, kv_heads=3, ffn=512)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_rate_rises_and_falls(schedule):
    config = TINY.revise(schedule=schedule, warmup_share=0.1, learning_rate=1.0, final_share=0.1)
    rates = [Schedule(100, config).learning_rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[79] == pytest.approx(1.0) if schedule == "wsd" else rates[79] < 0.5


def test_compiling_pays_for_long_runs_only():
    cpu = torch.device("cpu")
    assert not compiles(PretrainConfig(), cpu, 1e9)[0]
    assert compiles(PretrainConfig(compile="on"), cpu, 1e9)[0]
    assert compiles(PretrainConfig(), cpu, 1e18)[0] == any(map(shutil.which, ("c++", "g++", "clang++")))


def test_bits_per_byte_of_a_model_that_knows_nothing(corpus, chat, tmp_path):
    """With all logits equal each target costs log2(vocabulary) bits: the count of targets and bytes shows."""
    torch.set_num_threads(1)
    engine = Engine(build(TINY, chat), TINY, 1)
    torch.nn.init.zeros_(engine.model.lm_head.weight)
    rows = Rows(tokenize(corpus, "validation", 10**9, chat, Out(tmp_path)), TINY.sequence_length)
    yardstick = Yardstick.of(rows, 10**9, 4, chat)
    texts = stories(60, 2)
    encoded = [chat.encode(text) for text in texts]
    size = sum(len(text.encode()) - byte_lengths(chat)[ids[0]] for text, ids in zip(texts, encoded, strict=True))
    targets = sum(len(ids) - 1 for ids in encoded)
    assert yardstick.text_bytes == size
    expected = targets * math.log2(chat.tokenizer.get_vocab_size()) / size
    assert yardstick.bits_per_byte(engine) == pytest.approx(expected, rel=1e-5)


def test_a_small_budget_reads_an_even_share_of_the_corpus(chat, tmp_path):
    corpus = small_corpus(tmp_path / "corpus", documents=4_000)
    out = Out(tmp_path / "stage")
    few = tokenize(corpus, "train", 20_000, chat, out).lengths
    assert 20_000 <= few.sum() < 30_000
    assert few.tolist() == tokenize(corpus, "train", 20_000, chat, out).lengths.tolist()


def test_a_few_long_documents_are_enough(chat, tmp_path):
    """However small the budget, something is drawn; and long documents are cut into rows without loss."""
    corpus = dataset_of(tmp_path / "corpus", train=[" ".join(stories(200, seed)) for seed in range(3)])
    read = tokenize(corpus, "train", 100, chat, Out(tmp_path / "stage"))
    assert len(read.lengths) == 1
    rows = Rows(read, 64)
    assert rows.tokens == read.lengths[0] - 1
    assert rows.padding < 64 / rows.tokens


def test_an_overflowing_gradient_stops_the_run_before_it_is_saved(inputs, tmp_path, monkeypatch):
    config = TINY.revise(checkpoint_seconds=0.0, max_tokens=4_000)
    step = Engine.step

    def overflow(self, batches, learning_rate):
        taken = step(self, batches, learning_rate)
        return dataclasses.replace(taken, gradient_norm=taken.gradient_norm * math.inf)

    with monkeypatch.context() as patched, pytest.raises(StageError, match="gradient inf at step 1"):
        patched.setattr(Engine, "step", overflow)
        run(config, inputs, Out(tmp_path))
    assert not list((tmp_path / "work").glob("checkpoint-*"))


# Continuing


def test_a_continued_run_begins_where_the_checkpoint_ended(trained, inputs, tmp_path):
    first = card_of(trained[0])["bits_per_byte"][-1]["bits_per_byte"]
    start = PretrainInputs(**{**dict(inputs), "start": trained[1]})
    run(TINY.revise(max_tokens=2_000, learning_rate=1e-4), start, Out(tmp_path))
    card = card_of(tmp_path)
    assert card["bits_per_byte"][0]["bits_per_byte"] == pytest.approx(first, rel=1e-6)
    assert card["plan"]["started_from"] == trained[1].digest


def test_saved_in_16_bits(inputs, tmp_path):
    from safetensors import safe_open

    model = run(TINY.revise(max_tokens=1_000, save_dtype="bf16"), inputs, Out(tmp_path)).model
    with safe_open(model.path / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert json.loads((model.path / "config.json").read_text())["dtype"] == "bfloat16"


# Refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "fp16"}, "needs a CUDA device"),
        ({"micro_batch_size": 3}, "does not divide"),
        ({"shape": ShapeConfig(width=32, layers=1, heads=3, kv_heads=1, ffn=64)}, "heads must divide"),
        ({"prompt": "Ada had 12 apples. " * 20}, "holds no more"),
        ({"learning_rate": 1e35}, "lower pretrain.learning_rate"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(change, message, inputs, tmp_path):
    if torch.cuda.is_available() and "precision" in change:
        pytest.skip("there is a CUDA device here")
    with pytest.raises(StageError, match=message):
        run(TINY.revise(**change), inputs, Out(tmp_path))


def test_a_foreign_checkpoint_is_refused(trained, inputs, tmp_path):
    model = trained[1]
    others = [
        (TINY, {"tokenizer": "0" * 64}, {}, "another tokenizer"),
        (TINY.revise(sequence_length=128), {}, {}, "exceeds the checkpoint's context of 64"),
        (TINY, {}, {"architectures": ["GPTNeoXForCausalLM"]}, "GPTNeoXForCausalLM cannot be converted and served"),
    ]
    for i, (config, fields, changed, message) in enumerate(others):
        folder = tmp_path / str(i)
        folder.mkdir()
        for file in model.path.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        values = json.loads((folder / "config.json").read_text()) | changed
        (folder / "config.json").write_text(json.dumps(values))
        start = Model.of(folder, **identity_of(folder)).model_copy(update=fields)
        with pytest.raises(StageError, match=message):
            run(config, PretrainInputs(**{**dict(inputs), "start": start}), Out(tmp_path / f"stage{i}"))


def test_a_corpus_without_validation_is_refused(inputs, tokenizer, tmp_path):
    corpus = dataset_of(tmp_path / "corpus", train=stories(50, 1))
    with pytest.raises(StageError, match="no validation rows"):
        run(TINY, PretrainInputs(corpus=corpus, tokenizer=tokenizer), Out(tmp_path / "stage"))
