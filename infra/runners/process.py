"""Run stages as processes of this machine.

Linux: forked by `containers.server`, which has their libraries imported. macOS: a plain process for each.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from containers.contract import Stage
from containers.entrypoint import stage_named
from infra.failures import memory_kills
from infra.gpus import GPUs, listed
from infra.runners import GPU, Attempt
from infra.runners.environment import server_environment
from infra.settings import ROOT, Settings

START_SECONDS = 60.0
POLL_SECONDS = 0.02
FORKS = sys.platform == "linux"


class ProcessRunner:
    """Stages as processes: each in a group of its own, none outliving this process."""

    def __init__(self, settings: Settings, words: Iterable[str] = (), *, forks: bool = FORKS) -> None:
        """Prepare to run the stages called `words`, in that order (default: all); nothing is started yet."""
        self.settings = settings
        self.words = tuple(words) or tuple(sorted(f.parent.name for f in (ROOT / "containers").glob("*/main.py")))
        self.forks = forks
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._started: list[Attempt] = []
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Start the fork server, so that it imports while something else goes on; it is started once."""
        with self._lock:
            if not self.forks or (self._server and self._server.poll() is None):
                return
            self.settings.logs.mkdir(parents=True, exist_ok=True)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs, (self.settings.logs / "forkserver.log").open("ab") as log:
                self._server = subprocess.Popen(
                    [sys.executable, "-m", "containers.server", str(theirs.fileno()), *preloads(self.words)],
                    env=server_environment(self.settings), cwd=ROOT, pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self._control = ours

    def reap(self, folder: Path) -> None:
        """Do nothing: a stage process dies with its driver."""

    def gpus(self) -> GPUs:
        """Return the GPUs that the driver names; a process and its lock die together."""
        return GPUs(listed(), self.settings.gpu_locks, dict)

    def start(self, folder: Path, stage: Stage[Any, Any, Any], environment: Mapping[str, str]) -> Attempt:
        """Start the stage asked for in `folder`; raises OSError where the machine cannot."""
        self.warm()
        if GPU in environment:
            environment = {**environment, "CUDA_VISIBLE_DEVICES": environment[GPU]}
        attempt: Attempt
        if self._control:
            attempt = ForkedAttempt(self._order(folder, stage, environment))
        else:
            attempt = PlainAttempt(folder, environment)
        self._started.append(attempt)
        return attempt

    def close(self) -> None:
        """End every stage still running, and the fork server."""
        for attempt in self._started:
            attempt.stop(0)
        with self._lock:
            if self._server and self._control:
                self._control.close()
                self._server.wait()
            self._server = self._control = None

    def _order(self, folder: Path, stage: Stage[Any, Any, Any], environment: Mapping[str, str]) -> socket.socket:
        ours, theirs = socket.socketpair()
        order = {
            "folder": str(folder),
            "directory": str(folder / "work"),
            "environment": dict(environment),
            "preload": stage.preload,
            "online": stage.fetches,
        }
        assert self._control is not None
        with theirs:
            socket.send_fds(self._control, [json.dumps(order).encode()], [theirs.fileno()])
        return ours


def preloads(words: Iterable[str]) -> list[str]:
    """Return the modules that stages ask to have imported, in order of need, each once."""
    return list(dict.fromkeys(module for word in words for module in stage_named(word).preload))


class Killings:
    """Counts what the kernel kills for memory on this machine from now on."""

    def __init__(self) -> None:
        """Begin to count."""
        self._before = memory_kills()

    @property
    def memory_kills(self) -> int:
        """How many processes of this machine the kernel has killed for memory since."""
        return memory_kills() - self._before


class ForkedAttempt(Killings):
    """A stage that the fork server started; the socket tells its process id, then its exit code."""

    def __init__(self, connection: socket.socket) -> None:
        """Wait for the process id; raises OSError when the server does not answer."""
        super().__init__()
        self._connection = connection
        self._said = b""
        self._code: int | None = None
        connection.settimeout(START_SECONDS)
        while b"\n" not in self._said:
            said = connection.recv(64)
            if not said:
                raise ChildProcessError("the fork server ended: see logs/forkserver.log")
            self._said += said
        self.pid = int(self._said.partition(b"\n")[0])
        connection.setblocking(False)

    def poll(self) -> int | None:
        """Return the exit code (-9 when the server itself was killed), None while the stage runs."""
        if self._code is None:
            try:
                said = self._connection.recv(64)
                self._said += said
                if not said:
                    self._code = -signal.SIGKILL
            except BlockingIOError:
                pass
            except ConnectionError:
                self._code = -signal.SIGKILL
            lines = self._said.split(b"\n")
            if len(lines) > 2:
                self._code = int(lines[1])
            if self._code is not None:
                self._connection.close()
        return self._code

    def dump(self) -> None:
        """Have every thread's stack written to log.txt."""
        self._send(b"dump")

    def stop(self, patience_seconds: float = 5.0) -> None:
        """End the stage's process group: SIGTERM, then SIGKILL after `patience_seconds`."""
        self._send(b"term" if patience_seconds else b"kill")
        if not ended_within(self, patience_seconds or START_SECONDS):
            self._send(b"kill")
            ended_within(self, START_SECONDS)

    def _send(self, wish: bytes) -> None:
        if self.poll() is None:
            with contextlib.suppress(ConnectionError):
                self._connection.send(wish)


class PlainAttempt(Killings):
    """A stage in a fresh interpreter; it kills its own group when this process, at the other end of its stdin, dies."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Start it."""
        super().__init__()
        with (folder / "log.txt").open("ab") as log:
            self._process = start_plainly(folder, environment, log)
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, None while the stage runs."""
        code = self._process.poll()
        if code is not None:
            self._signal(signal.SIGKILL)
        return code

    def dump(self) -> None:
        """Have every thread's stack written to log.txt."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGUSR1)

    def stop(self, patience_seconds: float = 5.0) -> None:
        """End the stage's process group: SIGTERM, then SIGKILL after `patience_seconds`."""
        if self._process.poll() is None and patience_seconds:
            self._signal(signal.SIGTERM)
            ended_within(self, patience_seconds)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def start_plainly(folder: Path, environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start `python -m containers.entrypoint` on a stage folder, tied to this process by its standard input."""
    return subprocess.Popen(
        [sys.executable, "-m", "containers.entrypoint", str(folder), "--tied"],
        env=dict(environment), cwd=folder / "work", stdin=subprocess.PIPE, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip


def ended_within(attempt: Attempt, seconds: float) -> bool:
    """Wait for an attempt to end; return whether it did."""
    deadline = time.monotonic() + seconds
    while attempt.poll() is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
