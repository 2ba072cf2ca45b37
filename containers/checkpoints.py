"""Checkpoints that are either committed or absent: files first, the marker last.

A trainer writes into a folder of its own and calls `commit`; after a crash `newest` returns the last folder whose
marker verifies and moves torn ones aside, so that a kill in the middle of a save costs steps and nothing else.
"""

import json
import os
import shutil
from pathlib import Path

from containers.contract import digest_of_file, files_in
from containers.out import write_last

MARKER = "COMMIT.json"


def commit(folder: Path, step: int) -> None:
    """Flush every file of `folder` to disk, then write its marker (step, size and sha256 of each file)."""
    listed = {}
    for file in files_in(folder):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        listed[file.relative_to(folder).as_posix()] = [file.stat().st_size, digest_of_file(file)]
    write_last(folder / MARKER, json.dumps({"step": step, "files": listed}, sort_keys=True))


def newest(work: Path) -> tuple[int, Path] | None:
    """Return (step, folder) of the newest verified checkpoint below `work`; torn ones are renamed `*.torn`."""
    found = []
    for folder in sorted(work.glob("checkpoint-*")):
        if folder.suffix == ".torn":
            continue
        step = verified_step(folder)
        if step is None:
            shutil.rmtree(folder.with_suffix(".torn"), ignore_errors=True)
            folder.rename(folder.with_suffix(".torn"))
        else:
            found.append((step, folder))
    return max(found, default=None)


def verified_step(folder: Path) -> int | None:
    """Return the step of a checkpoint whose files all match its marker, else None."""
    marker = folder / MARKER
    if not marker.is_file():
        return None
    record = json.loads(marker.read_text(encoding="utf-8"))
    for name, (size, digest) in record["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size or digest_of_file(file) != digest:
            return None
    return int(record["step"])
