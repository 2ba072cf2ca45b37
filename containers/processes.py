"""What the fork server asks of the kernel: where output goes, who dies with whom, what a stage left behind (Linux)."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
CUDA_NOT_INITIALIZED = 3


def redirect(log: Path) -> None:
    """Send standard output and error to `log`; nothing can be read from standard input."""
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(source, target)
    os.close(written)
    os.close(nothing)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def die_with(parent: int, number: int) -> None:
    """Have the kernel send this process signal `number` when its parent dies (0: none), at once if it is dead."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number))
    if number and os.getppid() != parent:
        os.kill(os.getpid(), number)


def gpu_is_awake() -> bool:
    """Whether CUDA was initialised in this process; its driver refuses to work in any fork after that."""
    if "libcuda.so" not in Path("/proc/self/maps").read_text(encoding="utf-8"):
        return False
    count = ctypes.c_int()
    return int(ctypes.CDLL("libcuda.so.1").cuDeviceGetCount(ctypes.byref(count))) != CUDA_NOT_INITIALIZED


def started_by(folder: str) -> list[int]:
    """Return the processes whose environment names the stage folder: those that left its process group."""
    mark = f"SLIPWAY_STAGE_FOLDER={folder}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes() + b"\0":
                found.append(int(process.name))
    return found
