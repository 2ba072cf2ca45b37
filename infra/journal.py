"""The journal of a run: one line of JSON per event, appended as it happens and never changed.

Everything that looks at a run from outside (MLflow, `slipway logs`, `slipway status`) reads this file, so none of
them can delay or fail a stage, and what was down catches up. The events, each with `time` and, where it belongs to
one, the key of its `stage` (`data-corpus`):

    run       id, name, recipe, flow run, git        once, first
    started   word, label, address, config, inputs   a stage begins (`cached` when it was reused instead)
    metrics   step, values                           one point of each curve
    progress  done, total, unit, figures             how far a stage is
    log       level, text                            a line for people
    finished  seconds, metrics, outputs              a stage ended well (`failed` and `stopped` when not)
    end       status                                 once, last
"""

import json
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

NAME = "journal.jsonl"
Event = dict[str, Any]


class Journal:
    """The writing end: held by the process that drives the run, safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        """Open the journal of the run in `folder`, and hold the lock that says its driver lives."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = driver_lock(folder)
        self._lock.acquire(timeout=5)
        self._lines = (folder / NAME).open("a", encoding="utf-8", buffering=1)
        self._turn = threading.Lock()

    def write(self, event: str, stage: str = "", **values: Any) -> None:
        """Append one event."""
        line = {"time": round(time.time(), 3), "event": event, "stage": stage, **values}
        with self._turn:
            self._lines.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self._lines.close()
        self._lock.release()


def run_folders(runs: Path, holding: str) -> list[Path]:
    """Return the folders of all runs that have the file `holding`, by name; `runs/latest` only points at one."""
    return sorted(file.parent for file in runs.glob(f"*/{holding}") if not file.parent.is_symlink())


def driver_lock(folder: Path) -> FileLock:
    """Return the lock that the driver of a run holds as long as it lives."""
    return FileLock(folder / "driver.lock", thread_local=False)


def is_driven(folder: Path) -> bool:
    """Whether the process that drives the run in `folder` still lives (the system frees a dead one's lock)."""
    try:
        with driver_lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True


def read_from(folder: Path, position: int = 0, most: int | None = None) -> tuple[list[Event], int]:
    """Return (the events after byte `position`, `most` of them, the position after them); a half-written line waits."""
    file = folder / NAME
    if not file.exists():
        return [], position
    with file.open("rb") as stream:
        stream.seek(position)
        whole = [line for line in islice(stream, most) if line.endswith(b"\n")]
    return [json.loads(line) for line in whole], position + sum(map(len, whole))
