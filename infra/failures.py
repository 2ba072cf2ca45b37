"""How a stage run can fail, and what to tell the person about it."""

import shutil
import signal
from pathlib import Path
from typing import Any

from containers.contract import StageError
from containers.entrypoint import BAD_INPUT
from infra.events import read_events

LOG_LINES = 15
FULL_BYTES = 2**16
"""Less free space than this is none: a stage that finds none cannot even write down why it failed."""
OUT_OF_MEMORY = ("MemoryError", "out of memory", "OutOfMemoryError", "can't allocate memory", "Cannot allocate memory")
OUT_OF_DISK = ("No space left on device", "Disk quota exceeded", "File too large", "ENOSPC")


class BadInput(StageError):
    """A person's input cannot be used; the message is the stage's own."""


class StageFailed(RuntimeError):
    """A stage did not do what was asked; the message holds its last words."""


class Cancelled(RuntimeError):
    """The launch was cancelled; the stage was stopped and keeps its work."""


class FolderBusy(RuntimeError):
    """Another process is running the same stage."""


def failure_of(title: str, code: int | None, folder: Path, *, memory_kills: int = 0) -> Exception:
    """Return what to raise for a stage that ended with `code`; `memory_kills` are the kernel's since it started."""
    said = errors_in(folder)
    if code == BAD_INPUT:
        return BadInput(said[-1] if said else f"{title} refused its input without a word: see {folder / 'log.txt'}")
    last = "\n".join(said[-1:]) or tail_of(folder / "log.txt")
    if shutil.disk_usage(folder).free < FULL_BYTES:
        last += f"\nNo space left on device: {folder}"
    return StageFailed(f"{title} {reason(code, last, memory_kills)}\n{indented(last)}\n  log: {folder / 'log.txt'}")


def reason(code: int | None, last: str, memory_kills: int) -> str:
    """Return why a stage ended, in a few words and with the way out."""
    if any(sign in last for sign in OUT_OF_MEMORY) or (code == -signal.SIGKILL and memory_kills):
        return "ran out of memory: a smaller micro-batch or shorter sequences need less"
    if any(sign in last for sign in OUT_OF_DISK):
        return "ran out of disk space: `slipway prune` frees what no run needs, SLIPWAY_HOME moves everything"
    if code == -signal.SIGKILL:
        return "was killed from outside (most likely for memory: the kernel's log would say)"
    if code is not None and code < 0:
        return f"died of {signal.Signals(-code).name}"
    if code == 0:
        return "ended without a result"
    return f"failed (exit code {code})"


def errors_in(folder: Path) -> list[str]:
    """Return the error lines that a stage wrote to its events."""
    return [str(e["text"]) for e in read_events(folder / "events.jsonl") if is_error(e)]


def is_error(event: dict[str, Any]) -> bool:
    """Whether an event is an error line."""
    return event["event"] == "log" and event.get("level") == "error" and "text" in event


def tail_of(log: Path, lines: int = LOG_LINES) -> str:
    """Return the last lines of a log file, empty where there is none."""
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def indented(text: str) -> str:
    """Return a text set off by two spaces."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def memory_kills() -> int:
    """Return how many processes the kernel has killed for memory since boot; 0 where it does not say."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
