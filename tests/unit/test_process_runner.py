"""Stages as processes: forked from a server that has their libraries, or started plainly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from containers.contract import Request, Stage
from containers.tokenizer.contract import STAGE, TokenizerConfig, TokenizerInputs
from infra.runners.environment import environment_of, server_environment
from infra.runners.process import ProcessRunner, ended_within, preloads
from infra.settings import Settings
from infra.staging import linked, prepare
from tests.rules.house import ROOT
from tests.stages.small_corpus import small_corpus
from tests.unit.little_house import LittleHouse, gone, is_alive

linux = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(params=[pytest.param(True, marks=linux), False], ids=["forked", "plain"])
def runner(request, tmp_path):
    made = ProcessRunner(Settings(home=tmp_path / "home"), ("tokenizer",), forks=request.param)
    yield made
    made.close()


def staged(folder: Path, corpus, **config) -> Path:
    """Prepare a tokenizer run."""
    inputs = TokenizerInputs(corpus=corpus)
    request = Request(
        stage="tokenizer", label="", fingerprint="0" * 64, code="",
        config=TokenizerConfig(vocab_size=400).model_dump(mode="json") | config, inputs=linked(inputs),
    )  # fmt: skip
    prepare(folder, request, inputs)
    return folder


def start(runner: ProcessRunner, folder: Path, stage: Stage = STAGE):
    return runner.start(folder, stage, environment_of(stage, folder, runner.settings))


def server_of(runner: ProcessRunner) -> int:
    assert runner._server is not None
    return runner._server.pid


def chain(pid: int) -> list[int]:
    """Return the fork server's processes, first to last."""
    found = [pid]
    while True:
        children = Path(f"/proc/{found[-1]}/task/{found[-1]}/children").read_text().split()
        if not children:
            return found
        found.append(int(children[0]))


def grown(pid: int, length: int) -> list[int]:
    """Wait until the fork server has `length` processes, and the last one serves."""
    for _ in range(1200):
        found = chain(pid)
        if len(found) == length and "poll" in Path(f"/proc/{found[-1]}/wchan").read_text():
            return found
        time.sleep(0.05)
    raise AssertionError(f"the chain is {len(chain(pid))} long")


def test_stages_run_side_by_side(runner, corpus, tmp_path):
    attempts = [start(runner, staged(tmp_path / str(i), corpus)) for i in range(3)]
    assert len({attempt.pid for attempt in attempts}) == 3
    assert all(ended_within(attempt, 60) for attempt in attempts)
    assert [attempt.poll() for attempt in attempts] == [0, 0, 0]
    assert all((tmp_path / str(i) / "result.json").exists() for i in range(3))


def test_exit_codes_and_the_log_come_through(runner, corpus, tmp_path):
    folder = staged(tmp_path / "a", corpus, vocab_size="many")
    attempt = start(runner, folder)
    assert ended_within(attempt, 60)
    assert attempt.poll() == 1
    assert "vocab_size" in (folder / "events.jsonl").read_text()


def test_stopping_twice_and_after_the_end_is_harmless(runner, corpus, tmp_path):
    attempt = start(runner, staged(tmp_path / "a", corpus))
    attempt.stop(0)
    assert attempt.poll() is not None
    attempt.stop()
    attempt.dump()
    assert not is_alive(attempt.pid)


def test_closing_the_runner_ends_what_runs(runner, corpus, tmp_path):
    attempts = [start(runner, staged(tmp_path / str(i), corpus)) for i in range(2)]
    runner.close()
    assert gone([attempt.pid for attempt in attempts], 0.1)


def test_preloads_are_in_order_of_need_and_third_party():
    modules = preloads(["data", "tokenizer", "pretrain", "sft"])
    assert modules.index("tokenizers") < modules.index("torch") < modules.index("trl.trainer.sft_trainer")
    assert len(modules) == len(set(modules))
    everything = preloads(folder.parent.name for folder in (ROOT / "containers").glob("*/main.py"))
    assert not [module for module in everything if module.split(".")[0] in ("containers", "infra", "mlflow", "prefect")]


@linux
def test_a_module_that_cannot_be_imported_is_skipped(tmp_path):
    house = LittleHouse(tmp_path, module="no_such_module")
    assert house.run({"action": "write"})["status"] == "done"


@linux
def test_a_stage_finds_its_modules_imported(runner, corpus, tmp_path):
    if not runner.forks:
        pytest.skip("a plain process imports for itself")
    runner.warm()
    servers = grown(server_of(runner), 1 + len(preloads(["tokenizer"])))
    attempt = start(runner, staged(tmp_path / "a", corpus))
    parent = int(Path(f"/proc/{attempt.pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent == servers[-1]
    assert ended_within(attempt, 60)


@linux
def test_a_killed_server_is_noticed_and_replaced(runner, corpus, tmp_path):
    if not runner.forks:
        pytest.skip("there is no server")
    attempt = start(runner, staged(tmp_path / "a", corpus))
    os.kill(server_of(runner), signal.SIGKILL)
    assert ended_within(attempt, 30)
    again = start(runner, staged(tmp_path / "b", corpus))
    assert ended_within(again, 60)
    assert again.poll() == 0


@linux
@pytest.mark.slow
def test_no_library_wakes_the_gpu_when_it_is_imported():
    """A fork survives anything but CUDA: what the server imports must not have initialised it."""
    program = """
import importlib, sys
from containers.processes import gpu_is_awake
for module in sys.argv[1:]:
    importlib.import_module(module)
    assert not gpu_is_awake(), module
import torch
assert not torch.cuda.is_initialized()
"""
    modules = preloads(f.parent.name for f in sorted((ROOT / "containers").glob("*/main.py")))
    done = subprocess.run(
        [sys.executable, "-c", program, *modules],
        cwd=ROOT, env=server_environment(Settings()), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@linux
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_stage_forked_after_torch_trains_like_a_plain_one(tmp_path, compiled):
    """Two threads in a fork of a process that imported torch; torch.compile's workers too."""
    house = LittleHouse(tmp_path, module="torch")
    forked = house.run({"action": "train", "size": int(compiled)}, warm=True)
    assert forked["status"] == "done", forked
    assert (forked["metrics"]["threads"], forked["metrics"]["preloaded"]) == (2, 1)
    assert forked["metrics"]["loss"] < 60
    if compiled:
        plain = house.run({"action": "train", "size": 1}, home=tmp_path / "plain", plain=True)
        assert plain["metrics"]["preloaded"] == 0
        assert forked["metrics"]["loss"] == plain["metrics"]["loss"]
