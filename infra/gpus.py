"""GPU leases: one job per GPU of this machine.

A host lock is the truth (a file per GPU in `Settings.gpu_locks`, shared by every home). A lock dies with its holder, a
container does not: a GPU is free when its lock is free and no running container carries its label.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from infra.failures import Cancelled

POLL_SECONDS = 1.0


class GPUs(NamedTuple):
    """The GPUs that a runner can hand to stages, and how to tell which are free."""

    names: Sequence[str]
    """UUIDs."""
    folder: Path
    """Where the locks lie."""
    occupied: Callable[[], Mapping[str, str]]
    """Asked for the GPUs that containers run on, and their stages; it ends containers whose driver is gone."""


class Lease:
    """A GPU that is held."""

    def __init__(self, gpu: str, lock: FileLock) -> None:
        """Name it."""
        self.gpu, self._lock = gpu, lock

    def end(self) -> None:
        """Give it back."""
        self._lock.release()


def listed(visible: str | None = None) -> tuple[str, ...]:
    """Return the UUIDs of this machine's NVIDIA GPUs; of those in CUDA_VISIBLE_DEVICES (`visible`), where it is set."""
    import pynvml

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    handles = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount()))
    found = tuple(str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles)
    return found if chosen is None else restricted(found, chosen)


def restricted(found: Sequence[str], chosen: str) -> tuple[str, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names; CUDA stops at the first that it does not know."""
    kept: list[str] = []
    for name in (part.strip() for part in chosen.split(",")):
        by_index = found[int(name)] if name.isdigit() and int(name) < len(found) else None
        whole = by_index or next((uuid for uuid in found if name and uuid.startswith(name)), None)
        whole = whole or (name if name.startswith("MIG-") else None)
        if whole is None:
            break
        kept.append(whole)
    return tuple(kept)


@contextmanager
def leased(gpus: GPUs, who: str, tell: Callable[[str], None], cancelled: threading.Event) -> Iterator[str]:
    """Hold one of the GPUs for `who` and yield its UUID, empty where there is none at all.

    While all are taken, `tell` is called with whom it waits for, again when that changes. Raises Cancelled.
    """
    if not gpus.names:
        yield ""
        return
    told = ""
    while (lease := free_one(gpus, who)) is None:
        waits_for = f"{who} waits for a GPU: {'; '.join(holders(gpus))}"
        if waits_for != told:
            tell(waits_for)
            told = waits_for
        if cancelled.wait(POLL_SECONDS):
            raise Cancelled(f"{who} was stopped while it waited for a GPU")
    try:
        yield lease.gpu
    finally:
        lease.end()


def free_one(gpus: GPUs, who: str) -> Lease | None:
    """Return a lease of the first free GPU, None where all are taken."""
    for gpu in gpus.names:
        lock = lock_of(gpus.folder, gpu)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        if gpu in gpus.occupied():
            lock.release()
            continue
        write_shared(holder_file(gpus.folder, gpu), f"{who} (process {os.getpid()})")
        return Lease(gpu, lock)
    return None


def holders(gpus: GPUs) -> list[str]:
    """Return, for each GPU, who has it."""
    occupied = gpus.occupied()
    return [f"{gpu} is held by {occupied.get(gpu) or written(holder_file(gpus.folder, gpu))}" for gpu in gpus.names]


def lock_of(folder: Path, gpu: str) -> FileLock:
    """Return the lock of a GPU; users of one machine share it."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
    return FileLock(folder / f"{gpu}.lock", mode=0o666)


def holder_file(folder: Path, gpu: str) -> Path:
    """Return the file that says who took a GPU last."""
    return folder / f"{gpu}.holder"


def write_shared(file: Path, text: str) -> None:
    """Write a file that any user may replace."""
    file.unlink(missing_ok=True)
    file.write_text(text, encoding="utf-8")


def written(file: Path) -> str:
    """Return a file's text."""
    return file.read_text(encoding="utf-8") if file.is_file() else "someone who is about to say so"
