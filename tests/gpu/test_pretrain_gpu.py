"""The pretrain stage on a CUDA device: every precision learns, and a resumed run goes on without a jump."""

import json

import pytest
import torch

from containers.contract import StageError
from containers.out import Out
from containers.pretrain.contract import PretrainConfig, PretrainInputs, ShapeConfig
from containers.pretrain.main import run
from containers.pretrain.training import Training
from containers.tokenizer.contract import TokenizerConfig, TokenizerInputs
from containers.tokenizer.main import run as learn_tokenizer
from tests.stages.small_corpus import small_corpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

CONFIG = PretrainConfig(
    shape=ShapeConfig(width=128, layers=2, heads=2, kv_heads=1, ffn=256), sequence_length=128, max_tokens=200_000,
    batch_size=16, micro_batch_size=8, validation_tokens=2_000, prompt="Ada had", device="cuda", compile="off",
)  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    corpus = small_corpus(tmp_path_factory.mktemp("corpus"))
    out = Out(tmp_path_factory.mktemp("tokenizer"))
    made = learn_tokenizer(TokenizerConfig(vocab_size=320), TokenizerInputs(corpus=corpus), out)
    return PretrainInputs(corpus=corpus, tokenizer=made.tokenizer)


def trained(config, inputs, folder):
    run(config, inputs, Out(folder))
    return json.loads((folder / "outputs/card/card.json").read_text())


@pytest.mark.parametrize(("precision", "compile"), [("auto", "off"), ("fp32", "off"), ("fp16", "off"), ("bf16", "on")])
def test_it_learns_in_every_precision(precision, compile, inputs, tmp_path):
    card = trained(CONFIG.revise(precision=precision, compile=compile), inputs, tmp_path)
    first, last = (card["bits_per_byte"][i]["bits_per_byte"] for i in (0, -1))
    assert last < 0.5 * first
    assert card["precision"] == {"auto": "bf16"}.get(precision, precision)


def test_an_interrupted_run_goes_on_without_a_jump(inputs, tmp_path, monkeypatch):
    whole = trained(CONFIG, inputs, tmp_path / "whole")
    half = len(whole["curve"]) // 2
    report = Training.report

    def stop_half_way(self, step, taken, rate, pace):
        report(self, step, taken, rate, pace)
        if step == half:
            raise StageError("stopped half way")

    config = CONFIG.revise(checkpoint_seconds=0.0)
    with monkeypatch.context() as patched, pytest.raises(StageError, match="half way"):
        patched.setattr(Training, "report", stop_half_way)
        run(config, inputs, Out(tmp_path / "halves"))
    resumed = trained(config, inputs, tmp_path / "halves")
    pairs = zip(whole["curve"], resumed["curve"], strict=True)
    assert all(a["loss"] == pytest.approx(b["loss"], rel=0.05) for a, b in pairs)
