"""What may be thrown away: stored stages that nobody uses, what was set aside, and attempts given up long ago."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.settings import Settings
from infra.store import Store

ABANDONED_DAYS = 7
SET_ASIDE = (".damaged", ".removed")


@dataclass(frozen=True)
class Waste:
    """A folder that nothing needs."""

    folder: Path
    reason: str

    @property
    def bytes(self) -> int:
        """What its files take up."""
        return sum(file.lstat().st_size for file in self.folder.rglob("*") if file.is_file())


def waste(settings: Settings, used: set[str]) -> list[Waste]:
    """Return what can go, given the addresses in use: those of the runs that are kept, and what is served."""
    return [*unused(Store(settings.store), used), *abandoned(settings.home / "staging")]


def unused(store: Store, used: set[str]) -> Iterator[Waste]:
    """Yield published folders that are not in use, and those set aside as damaged or half removed."""
    for address in store.addresses():
        if address not in used:
            yield Waste(store.root / address, "no kept run and nothing served uses it")
    for folder in sorted(store.root.glob("*")):
        if folder.suffix in SET_ASIDE:
            yield Waste(folder, f"set aside as {folder.suffix[1:]}")


def abandoned(staging: Path) -> Iterator[Waste]:
    """Yield attempts that ended without a result days ago; a newer one is continued by the next run."""
    for folder in sorted(staging.glob("*")):
        days = (time.time() - last_touched(folder)) / 86_400
        if folder.is_dir() and days > ABANDONED_DAYS:
            yield Waste(folder, f"an attempt that ended without a result {days:.0f} days ago")


def last_touched(folder: Path) -> float:
    """Return when an attempt last wrote an event, or began."""
    events = folder / "events.jsonl"
    return (events if events.is_file() else folder).stat().st_mtime


def discard(folder: Path) -> None:
    """Remove a folder; killed halfway, it leaves something that no one takes for a whole one."""
    doomed = folder.with_suffix(".removed")
    if folder != doomed:
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
    shutil.rmtree(doomed)
