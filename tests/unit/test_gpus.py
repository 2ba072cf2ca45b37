"""GPU leases, with real locks between real processes."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infra.failures import Cancelled
from infra.gpus import GPUs, free_one, holders, leased, restricted
from tests.rules.house import ROOT

HOLD = """
import sys, threading
from pathlib import Path
from infra.gpus import GPUs, leased
gpus = GPUs(sys.argv[3:], Path(sys.argv[1]), dict)
with leased(gpus, sys.argv[2], lambda text: print(text, flush=True), threading.Event()) as gpu:
    print("holds", gpu, flush=True)
    sys.stdin.read()
"""
NAMES = ("GPU-a", "GPU-b")


def holder(folder: Path, who: str, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), who, *(names or NAMES)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("")
    assert process.returncode == 0


def test_each_gpu_has_one_job_and_the_next_is_told_whom_it_waits_for(tmp_path):
    first, second = holder(tmp_path, "sft a"), None
    assert said(first) == "holds GPU-a"
    second = holder(tmp_path, "sft b")
    assert said(second) == "holds GPU-b"
    third = holder(tmp_path, "sft c")
    waits = said(third)
    assert waits.startswith("sft c waits for a GPU: ")
    assert f"GPU-a is held by sft a (process {first.pid})" in waits
    assert f"GPU-b is held by sft b (process {second.pid})" in waits
    let_go(second)
    assert said(third) == "holds GPU-b"
    let_go(first)
    let_go(third)


def test_a_killed_holder_holds_nothing(tmp_path):
    first = holder(tmp_path, "sft a", "GPU-a")
    assert said(first) == "holds GPU-a"
    second = holder(tmp_path, "sft b", "GPU-a")
    assert "held by sft a" in said(second)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    began = time.monotonic()
    assert said(second) == "holds GPU-a"
    assert time.monotonic() - began < 10
    let_go(second)


def test_a_gpu_that_a_container_runs_on_is_not_free_though_its_lock_is(tmp_path):
    running = {"GPU-a": "sft (container 1f2e)"}
    gpus = GPUs(("GPU-a",), tmp_path, lambda: running)
    assert free_one(gpus, "dpo") is None
    assert holders(gpus) == ["GPU-a is held by sft (container 1f2e)"]
    running.clear()
    lease = free_one(gpus, "dpo")
    assert lease is not None and lease.gpu == "GPU-a"
    assert free_one(gpus, "grpo") is None
    lease.end()


def test_waiting_can_be_cancelled(tmp_path):
    gpus, cancelled = GPUs(("GPU-a",), tmp_path, dict), threading.Event()
    lease = free_one(gpus, "sft")
    assert lease is not None
    threading.Timer(0.2, cancelled.set).start()
    with pytest.raises(Cancelled, match="waited for a GPU"), leased(gpus, "dpo", print, cancelled):
        pass
    lease.end()


def test_without_a_gpu_nothing_is_held(tmp_path):
    with leased(GPUs((), tmp_path / "locks", dict), "sft", print, threading.Event()) as gpu:
        assert gpu == "" and not (tmp_path / "locks").exists()


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ("", ()), ("-1", ()), ("1", ("GPU-bbb",)), ("1,0", ("GPU-bbb", "GPU-aaa")), ("0,7,1", ("GPU-aaa",)),
        ("GPU-b", ("GPU-bbb",)), ("MIG-1", ("MIG-1",)),
    ],
)  # fmt: skip
def test_cuda_visible_devices_is_heeded(chosen, kept):
    assert restricted(("GPU-aaa", "GPU-bbb"), chosen) == kept
