"""The folder that a stage run happens in, before it is published: `<home>/staging/<address>/`.

It survives a failed attempt with its work/, so that the next attempt continues where a checkpoint was committed.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from containers.contract import Artifact, Frozen, Request, artifacts_in, digest_of, files_in
from containers.entrypoint import placed
from containers.out import write_last
from infra.failures import FolderBusy, StageFailed
from infra.store import disk_error, stat_of

PER_ATTEMPT = ("inputs", "outputs", "result.json", "events.jsonl", "log.txt", "index.json")
"""What an attempt starts without; work/ stays."""
Stats = tuple[tuple[str, tuple[int, ...]], ...]
"""(relative path, (size, mtime_ns, inode)) of every file of an artifact."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the one right to run in `folder`; raises FolderBusy naming the process that has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    holder = folder.with_suffix(".pid")
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            holder.write_text(str(os.getpid()), encoding="utf-8")
            yield
    except Timeout:
        pid = holder.read_text(encoding="utf-8") if holder.is_file() else "unknown"
        raise FolderBusy(f"process {pid} is running {folder.name} now: wait for it, or stop it") from None


def prepare(folder: Path, request: Request, inputs: Frozen) -> None:
    """Make `folder` ready for an attempt: old outputs gone, work kept, inputs linked, the request written."""
    try:
        for name in PER_ATTEMPT:
            remove(folder / name)
        for name in ("inputs", "outputs", "work/tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, artifact in artifacts_in(inputs):
            (folder / "inputs" / name).symlink_to(artifact.path.absolute())
        write_last(folder / "request.json", request.model_dump_json(indent=1))
    except OSError as error:
        raise disk_error(error, folder) from error


def remove(path: Path) -> None:
    """Remove a file, link or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def linked(inputs: Frozen) -> dict[str, Any]:
    """Return inputs as JSON values for a request, each artifact's path being inputs/<name>."""
    return placed(inputs, lambda name, _: f"inputs/{name}")


class InputGuard:
    """Sees to it that a stage reads what it was promised, and that it only reads."""

    def __init__(self, inputs: Frozen) -> None:
        """Hash every input; raises StageFailed where one is not what its digest says."""
        self.artifacts: dict[str, Artifact] = dict(artifacts_in(inputs))
        self.stats = {name: stats_of(artifact.path) for name, artifact in self.artifacts.items()}
        for name, artifact in self.artifacts.items():
            if digest_at(artifact.path, self.stats[name]) != artifact.digest:
                raise StageFailed(
                    f"the input {name} at {artifact.path} is not what it was when it was made (its digest differs): "
                    "run again, and what made it is made anew"
                )

    def check(self) -> None:
        """Raise StageFailed naming the file, where the stage wrote into an input."""
        for name, artifact in self.artifacts.items():
            before, now = dict(self.stats[name]), dict(stats_of(artifact.path))
            touched = [file for file in sorted(before.keys() | now.keys()) if before.get(file) != now.get(file)]
            if touched:
                raise StageFailed(
                    f"the stage wrote into its input {name}: {artifact.path / touched[0]} changed while it ran; "
                    "inputs are only read, caches belong into work/"
                )


def stats_of(path: Path) -> Stats:
    """Return the stats of every file of an artifact."""
    return tuple((str(file.relative_to(path)), tuple(stat_of(file))) for file in files_in(path))


@lru_cache(maxsize=1024)
def digest_at(path: Path, _stats: Stats) -> str:
    """Return the digest of an artifact's bytes; hashed once for as long as its stats stay."""
    return digest_of(path)
