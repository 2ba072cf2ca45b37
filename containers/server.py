"""The fork server: starts each stage as a fork of a process that has already imported what it needs.

Started clean by the process runner (`python -m containers.server CONTROL_FD MODULE...`): importing trl takes ten
seconds, forking a process that has done so a tenth of one. The first server has only what the contract needs. It
forks a successor that imports the first module, which forks one that imports the next, and so on; each serves. A stage
is handed along until a server has what the stage needs or the next one is not ready, so none ever waits for an
import that it does not need. Only third-party modules are imported ahead: containers.* is read fresh by every stage.

When the control socket closes, for whatever reason, every stage and all that it started is killed.
"""

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.processes import die_with, gpu_is_awake, redirect, started_by

MESSAGE_BYTES = 200_000
CONTRACT_NEEDS = ("pydantic.main", "pydantic.fields", "pydantic.type_adapter", "importlib.metadata", "json", "ast")
"""What every stage imports first; a bare `import pydantic` loads next to nothing of it."""
READY, READY_WITH_HUB, UNFIT = b"ready", b"ready-with-hub", b"unfit"


@dataclass(frozen=True)
class Child:
    """A forked process: a stage (connection to its runner) or the successor (its control socket)."""

    pid: int
    ended: int
    """A pidfd: readable when the process has ended."""
    connection: socket.socket
    folder: str = ""


class Server:
    """One process of the chain: forks stages, and a successor that has imported one module more."""

    def __init__(self, control: socket.socket, modules: list[str], upcoming: list[str]) -> None:
        """Serve what arrives on `control`, having imported `modules`; `upcoming` are for the successors."""
        self.control = control
        self.modules = modules
        self.upcoming = upcoming
        self.stages: list[Child] = []
        self.successor: Child | None = None
        self.successor_state = b""
        self.selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve until the control socket closes; then kill every stage."""
        self.selector.register(self.control, selectors.EVENT_READ, self.receive)
        self.grow()
        with contextlib.suppress(EOFError):
            while True:
                for key, _ in self.selector.select():
                    if key.fd in self.selector.get_map():
                        key.data()
        for stage in self.stages:
            kill(stage)
        if self.successor:
            self.successor.connection.close()
            if not self.successor_state:  # Still importing: it holds no stage, and would hear of the end too late.
                os.kill(self.successor.pid, signal.SIGKILL)
            os.waitpid(self.successor.pid, 0)

    def grow(self) -> None:
        """Fork the successor that imports the next module."""
        if not self.upcoming:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        module, *rest = self.upcoming
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self.forget()
            succeed(theirs, [*self.modules, module], rest, me)
        theirs.close()
        self.successor, self.successor_state = Child(pid, -1, ours), b""
        self.selector.register(ours, selectors.EVENT_READ, self.hear_successor)

    def hear_successor(self) -> None:
        """Note that the successor is ready, or replace one that cannot serve (its import failed or woke the GPU)."""
        assert self.successor is not None
        said = self.successor.connection.recv(64)
        if said in (READY, READY_WITH_HUB):
            self.successor_state = said
            return
        self.selector.unregister(self.successor.connection)
        self.successor.connection.close()
        os.waitpid(self.successor.pid, 0)
        self.successor = None
        self.upcoming = self.upcoming[1:]
        self.grow()

    def receive(self) -> None:
        """Take one order from the control socket: serve it, or hand it to the successor; raises EOFError at the end."""
        message, descriptors, _, _ = socket.recv_fds(self.control, MESSAGE_BYTES, 1)
        if not message:
            raise EOFError
        order = json.loads(message)
        if self.successor and self.is_for_successor(order):
            socket.send_fds(self.successor.connection, [message], descriptors)
            os.close(descriptors[0])
        else:
            self.fork_stage(order, socket.socket(fileno=descriptors[0]))

    def is_for_successor(self, order: dict[str, Any]) -> bool:
        """Whether the stage needs more than is imported here, and the successor is ready to give it.

        huggingface_hub settles at import whether it is offline, so a stage that fetches starts before that import.
        """
        if order["online"] and self.successor_state == READY_WITH_HUB:
            return False
        return bool(self.successor_state) and not set(order["preload"]) <= set(self.modules)

    def fork_stage(self, order: dict[str, Any], connection: socket.socket) -> None:
        """Start a stage; its process id goes to the runner at once, its exit code when it ends."""
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            connection.close()
            self.forget()
            run_stage(order, me)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        stage = Child(pid, os.pidfd_open(pid), connection, order["folder"])
        self.stages.append(stage)
        connection.send(f"{pid}\n".encode())
        self.selector.register(stage.ended, selectors.EVENT_READ, lambda: self.reap(stage))
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.obey(stage))

    def obey(self, stage: Child) -> None:
        """Signal a stage as the runner asks; a runner that hung up no longer wants it."""
        try:
            wanted = stage.connection.recv(64)
        except ConnectionError:
            wanted = b""
        if b"dump" in wanted:
            os.kill(stage.pid, signal.SIGUSR1)
        if b"term" in wanted:
            os.killpg(stage.pid, signal.SIGTERM)
        if b"kill" in wanted or not wanted:
            os.killpg(stage.pid, signal.SIGKILL)
        if not wanted:
            self.selector.unregister(stage.connection)

    def reap(self, stage: Child) -> None:
        """Collect a stage that ended, kill what it left behind and tell the runner its exit code."""
        self.selector.unregister(stage.ended)
        if stage.connection.fileno() in self.selector.get_map():
            self.selector.unregister(stage.connection)
        self.stages.remove(stage)
        code = kill(stage)
        with contextlib.suppress(OSError):
            stage.connection.send(f"{code}\n".encode())
        stage.connection.close()
        os.close(stage.ended)

    def forget(self) -> None:
        """Close, in a fork, all that the server holds: a socket kept open here would hide that its other end died."""
        self.selector.close()
        self.control.close()
        for child in (*self.stages, *([self.successor] if self.successor else [])):
            child.connection.close()
            if child.ended >= 0:
                os.close(child.ended)


def succeed(control: socket.socket, modules: list[str], upcoming: list[str], parent: int) -> None:
    """Import the last of `modules` and serve; never returns."""
    try:
        die_with(parent, signal.SIGKILL)
        importlib.import_module(modules[-1])
        if gpu_is_awake():
            raise ImportError(f"importing {modules[-1]} initialised CUDA, which no fork survives")
        die_with(parent, 0)
        gc.collect()
        gc.freeze()
        control.send(READY_WITH_HUB if "huggingface_hub" in sys.modules else READY)
        Server(control, modules, upcoming).serve()
    except ImportError:
        traceback.print_exc()
        control.send(UNFIT)
    finally:
        os._exit(0)


def run_stage(order: dict[str, Any], parent: int) -> None:
    """Become the stage that `order` describes: group, environment, log, folder; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with(parent, signal.SIGKILL)
        folder = Path(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        tempfile.tempdir = None
        redirect(folder / "log.txt")
        os.chdir(order["directory"])
        code = importlib.import_module("containers.entrypoint").main(folder)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def kill(stage: Child) -> int:
    """Kill a stage with all that it started; return its exit code, negative for a signal."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(stage.pid, signal.SIGKILL)
    _, status = os.waitpid(stage.pid, 0)
    for straggler in started_by(stage.folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(straggler, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    for name in CONTRACT_NEEDS:
        importlib.import_module(name)
    Server(socket.socket(fileno=int(sys.argv[1])), [], sys.argv[2:]).serve()
