"""The run record: `<home>/runs/<run>/run.json`, rewritten whole as stages begin and end, and `runs/latest`.

A run's folder holds run.json (this record), recipe.json (resolved), journal.jsonl (every event), report.html and
report.json, and mlflow.json (how far the journal is entered in MLflow).
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from containers.contract import Endpoint, Frozen, Request, Result, StageError
from containers.out import write_last
from infra.journal import Journal, is_driven, run_folders
from infra.launch import StageRun, current_launch
from infra.planning import parts_file
from infra.settings import Settings

StageStatus = Literal["running", "cached", "done", "failed", "stopped"]
KEPT = ("time", "event", "stage")
RunStatus = Literal["running", "done", "failed", "stopped", "killed"]


class StageEntry(Frozen):
    """One stage (or host task) of a run."""

    name: str
    label: str = ""
    status: StageStatus = "running"
    seconds: float = 0.0
    address: str = ""
    fingerprint: str = ""
    error: str = ""

    @property
    def title(self) -> str:
        """`sft`, or `data corpus` for one of several."""
        return f"{self.name} {self.label}".strip()


class RunRecord(Frozen):
    """run.json."""

    run: str
    """Its name in runs/."""
    recipe: str
    status: RunStatus = "running"
    began: float
    """Seconds since the epoch."""
    ended: float | None = None
    git: str = ""
    """Commit of the checkout, with `+` when it had changes."""
    flow_run_id: str = ""
    mlflow_run_id: str = ""
    config: dict[str, Any]
    """The resolved recipe."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What the flow was called with: the recipe's name, and changes to it."""
    stages: tuple[StageEntry, ...] = ()
    endpoint: Endpoint | None = None
    error: str = ""


class RunView:
    """A run by its folder and its record; all there is while a flow is only walked."""

    def __init__(self, settings: Settings, record: RunRecord) -> None:
        """Name the folder; nothing is written."""
        self.folder = settings.runs / record.run
        self.record = record


class Run(RunView):
    """A run that is being driven: it has a journal as well."""

    def __init__(self, settings: Settings, record: RunRecord) -> None:
        """Make the folder, write the first record and point runs/latest at it."""
        super().__init__(settings, record)
        self.journal = Journal(self.folder)
        self.running: tuple[str, ...] = ()
        """Keys of the stages that run now."""
        write_last(self.folder / "recipe.json", json.dumps(record.config, indent=1, ensure_ascii=False))
        self.save()
        point(settings.runs / "latest", record.run)
        self.journal.write(
            "run", name=record.recipe, git=record.git, flow_run_id=record.flow_run_id, config=record.config
        )

    def save(self, **changes: Any) -> None:
        """Rewrite run.json with `changes`."""
        self.record = self.record.revise(**changes)
        write_last(self.folder / "run.json", self.record.model_dump_json(indent=1))

    def enter(self, row: int, entry: StageEntry) -> None:
        """Put a stage's entry in its row (one past the last for a new one) and save."""
        stages = self.record.stages
        self.save(stages=(*stages[:row], entry, *stages[row + 1 :]))

    def close(self, status: RunStatus, error: str = "") -> None:
        """Write the end."""
        identified = read_mlflow_id(self.folder) or self.record.mlflow_run_id
        self.save(status=status, ended=time.time(), error=error, mlflow_run_id=identified)
        self.journal.write("end", status=status)
        self.journal.close()


class Place(NamedTuple):
    """Where a stage stands in the record, and its key in the journal."""

    row: int
    key: str
    began: float
    cached: bool


class Recorder:
    """The listener that keeps the record and the journal of a run."""

    def __init__(self, run: Run) -> None:
        """Record into `run`."""
        self.run = run
        self.places: dict[StageRun, Place] = {}

    def stage_started(self, run: StageRun, request: Request, cached: bool) -> None:
        """Note that a stage begins, or is reused."""
        titles = [entry.title for entry in self.run.record.stages]
        again = titles.count(run.title)
        key = run.title.replace(" ", "-") + (f"-{again + 1}" if again else "")
        self.places[run] = Place(len(titles), key, time.monotonic(), cached)
        entry = StageEntry(name=run.name, label=run.label, address=run.address, fingerprint=run.fingerprint)
        self.run.enter(len(titles), entry)
        named = {"word": run.name, "label": run.label, "address": run.address, "fingerprint": run.fingerprint}
        event = "cached" if cached else "started"
        self.run.running += () if cached else (key,)
        self.run.journal.write(event, key, **named, config=request.config, inputs=request.inputs)

    def stage_event(self, run: StageRun, event: dict[str, Any]) -> None:
        """Pass a stage's event on to the journal."""
        kind = event["event"]
        self.run.journal.write(kind, self.places[run].key, **{k: v for k, v in event.items() if k not in KEPT})

    def stage_ended(self, run: StageRun, outcome: Result | BaseException) -> None:
        """Note what became of it."""
        row, key, began, cached = self.places[run]
        self.run.running = tuple(other for other in self.run.running if other != key)
        seconds = round(time.monotonic() - began, 3)
        entry = self.run.record.stages[row].revise(seconds=seconds)
        if isinstance(outcome, BaseException):
            status = status_of(outcome)
            self.run.enter(row, entry.revise(status=status, error=str(outcome)))
            self.run.journal.write(status, key, seconds=seconds, error=str(outcome))
            return
        if run.address:
            self._keep_parts(run)
        self.run.enter(row, entry.revise(status="cached" if cached else "done"))
        self.run.journal.write(
            "finished", key, seconds=seconds, metrics=outcome.metrics, outputs=outcome.outputs,
            address=run.address, folder=str(run.published), cached=cached,
        )  # fmt: skip
        for value in outcome.outputs.values():
            if isinstance(value, dict) and value.get("kind") == "endpoint":
                self.run.save(endpoint=Endpoint.model_validate(value))

    def _keep_parts(self, run: StageRun) -> None:
        """Keep the parts of the fingerprint, so that `slipway why` can say what changed."""
        parts = next((r.components for r in reversed(current_launch().stages) if r.address == run.address), {})
        file = parts_file(self.run.folder.parent.parent, run.address)
        file.parent.mkdir(exist_ok=True)
        write_last(file, json.dumps(parts, indent=1))


def status_of(error: BaseException) -> Literal["failed", "stopped"]:
    """Tell a failure from being stopped: by Ctrl-C, by a cancel, by another stage's failure."""
    stopped = isinstance(error, KeyboardInterrupt | SystemExit) or not isinstance(error, Exception)
    return "stopped" if stopped or type(error).__name__ == "Cancelled" else "failed"


def new_run_name(runs: Path, recipe: str) -> str:
    """Return `<recipe>-<UTC date>-<time>`, made unique."""
    name = f"{recipe}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    taken = sum(1 for _ in runs.glob(f"{name}*"))
    return f"{name}-{taken + 1}" if taken else name


def point(link: Path, target: str) -> None:
    """Point a symlink at `target` in one step."""
    scratch = link.with_name(f"{link.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(link)


def read_mlflow_id(folder: Path) -> str:
    """Return the id of the run's parent in MLflow, once the relay has made it."""
    file = folder / "mlflow.json"
    return str(json.loads(file.read_text())["runs"].get("", "")) if file.exists() else ""


def read_record(folder: Path) -> RunRecord:
    """Return a run's record as it is now; one whose driver is gone without a word was killed."""
    record = RunRecord.model_validate_json((folder / "run.json").read_text(encoding="utf-8"))
    if record.status == "running" and not is_driven(folder):
        record = record.revise(status="killed")
    return record.revise(mlflow_run_id=record.mlflow_run_id or read_mlflow_id(folder))


def find_run(settings: Settings, name: str = "latest") -> Path:
    """Return the folder of a run, the newest by default; raises StageError with the nearest ones."""
    folder = settings.runs / name
    if (folder / "run.json").exists():
        return folder.resolve()
    newest_first = sorted(run_folders(settings.runs, "run.json"), key=lambda run: -(run / "run.json").stat().st_mtime)
    known = [run.name for run in newest_first]
    if not known:
        raise StageError("there is no run yet: start one with `slipway run tiny`")
    raise StageError(f"there is no run {name!r}; the newest are: {', '.join(known[:5])}")


_current: ContextVar[RunView] = ContextVar("run")


@contextmanager
def driving(run: RunView) -> Iterator[RunView]:
    """Make `run` the current one."""
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def current_run() -> RunView:
    """Return the run that this code is part of; raises LookupError outside of one."""
    return _current.get()
