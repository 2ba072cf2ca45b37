"""The doctor: what it refuses, what it says of ports, and that a bare Python can run it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra.doctor import NOTE, OK, REFUSED, examine, holder_of, is_free, machine, port

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("system", "kind", "way_out"),
    [("Windows", "AMD64", "WSL2"), ("Darwin", "x86_64", "Linux machine"), ("Linux", "riscv64", "aarch64")],
)
def test_machines_that_cannot_work_are_refused_with_the_way_out(system: str, kind: str, way_out: str) -> None:
    finding = machine(system, kind)
    assert finding.verdict == REFUSED
    assert way_out in finding.advice


@pytest.mark.parametrize(("system", "kind"), [("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")])
def test_machines_that_work_are_not(system: str, kind: str) -> None:
    assert machine(system, kind).verdict == OK


def test_a_taken_port_is_told_with_its_holder_and_the_setting_that_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        monkeypatch.setenv("SLIPWAY_PREFECT_PORT", str(number))
        finding = port("prefect", "SLIPWAY_PREFECT_PORT", 4200)
        assert finding.verdict == NOTE
        assert f"(pid {os.getpid()})" in finding.seen == f"{number} is taken by {holder_of(number)}"
        assert "SLIPWAY_PREFECT_PORT" in finding.advice
    assert is_free(number)


def test_this_machine_passes() -> None:
    assert [finding for finding in examine() if finding.verdict == REFUSED] == []


def test_it_runs_on_a_bare_python_without_our_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "infra" / "doctor.py"), "--before-install"],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Ready." in done.stdout
