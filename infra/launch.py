"""A launch: what every stage run of one command shares, held in a context variable.

A flow opens one with `launching(Launch(...))`; `run_stage` takes settings, store, runner and listeners from it and
notes every stage run in `launch.stages`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from containers.contract import Request, Result
from infra.runners import Runner
from infra.settings import Settings
from infra.store import Store

Status = Literal["done", "cached", "failed", "stopped"]


@dataclass(frozen=True)
class StageRun:
    """One call of `run_stage`: who it is and where it writes."""

    name: str
    """The stage's word."""
    label: str
    """Which of several runs of the stage: the role of a dataset, the name of a model; empty for a single one."""
    fingerprint: str
    address: str
    """`<stage>-<first 12 hex of the fingerprint>`, its name in the store."""
    folder: Path
    """Where its files are now: staging while it runs, the store when it was reused."""
    published: Path
    """Where they are after success (card in outputs/card/)."""

    @property
    def title(self) -> str:
        """`sft`, or `data corpus` for one of several."""
        return f"{self.name} {self.label}".strip()


@dataclass(frozen=True)
class StageRecord:
    """What became of a stage run, for the report."""

    name: str
    label: str
    status: Status
    seconds: float
    """Wall time in this launch: near 0 for a reused stage; `result.seconds` is what it took when it was made."""
    fingerprint: str
    address: str
    components: dict[str, Any]
    """The parts of the fingerprint by name (`infra.fingerprint.components`)."""
    metrics: dict[str, float] = field(default_factory=dict)
    result: Result | None = None
    error: str = ""


class Listener(Protocol):
    """Anything that watches stages: MLflow, Prefect, the live board. Called in the thread that runs the stage."""

    def stage_started(self, run: StageRun, request: Request, cached: bool) -> None:
        """Called once per stage run; `cached` means that the store has it and nothing will be started."""
        ...

    def stage_event(self, run: StageRun, event: dict[str, Any]) -> None:
        """Called for each line of events.jsonl as it is written: `time`, `event` (metrics, progress, log), values."""
        ...

    def stage_ended(self, run: StageRun, outcome: Result | BaseException) -> None:
        """Called once per stage run; the record is in `launch.stages` by then, the files in `run.published`."""
        ...


@dataclass
class Launch:
    """What the stage runs of one command share."""

    settings: Settings
    store: Store
    runner: Runner
    listeners: tuple[Listener, ...] = ()
    stages: list[StageRecord] = field(default_factory=list)
    """Every stage run so far, in the order in which they ended."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set from any thread: running stages are stopped and raise Cancelled."""


class NoLaunchError(RuntimeError):
    """A stage was run outside of any launch."""


_current: ContextVar[Launch] = ContextVar("launch")


@contextmanager
def launching(launch: Launch) -> Iterator[Launch]:
    """Make `launch` the current one; when the block ends, its runner is closed."""
    token = _current.set(launch)
    try:
        yield launch
    finally:
        _current.reset(token)
        launch.runner.close()


def current_launch() -> Launch:
    """Return the launch of this context; raises NoLaunchError outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise NoLaunchError("run_stage needs a launch: `with launching(Launch(...))` (flows do it in run_of)") from None
