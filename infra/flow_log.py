"""The listener that shows stages in the Prefect UI: live logs, a progress bar, a table of final figures.

Prefect being slow or away never hurts a stage: what cannot be shown is logged once and left out.
"""

import logging
import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from containers.contract import Request, Result
from infra.flow_note import show_report
from infra.launch import StageRun
from infra.runs import current_run

SECONDS_BETWEEN_UPDATES = 3.0
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

reused_stages: ContextVar[list[bool] | None] = ContextVar("reused_stages", default=None)
"""Whether each stage run of the current task was reused."""


class FlowLog:
    """Relays each stage into the Prefect task run that called it."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        self.bars: dict[StageRun, UUID] = {}
        self.shown: dict[StageRun, float] = {}

    def stage_started(self, run: StageRun, request: Request, cached: bool) -> None:
        """Log where the stage runs, or that it was reused."""
        reused = reused_stages.get()
        if reused is not None:
            reused.append(cached)
        if run.address:
            say(f"Reused {run.address} from the store." if cached else f"Running as {run.address} in {run.folder}.")

    def stage_event(self, run: StageRun, event: dict[str, Any]) -> None:
        """Log a line; keep the progress bar up to date, every few seconds."""
        if event["event"] == "log":
            say(event["text"], LEVELS.get(event["level"], logging.INFO))
        if event["event"] == "progress" and event["total"] and self._is_due(run):
            share = min(100.0, 100.0 * event["done"] / event["total"])
            attempt(lambda: self._show(run, share, figures_of(event)))

    def stage_ended(self, run: StageRun, outcome: Result | BaseException) -> None:
        """Complete the bar and write the table of final figures."""
        if isinstance(outcome, BaseException) or not in_task():
            return
        if run in self.bars:
            attempt(lambda: self._show(run, 100.0, f"{run.title}: done"))
        if run.name == "report":
            attempt(lambda: show_report(current_run().folder))
        rows = [{"figure": name, "value": f"{value:.6g}"} for name, value in sorted(outcome.metrics.items())]
        if rows:
            about = f"Final figures of {run.title} ({run.address})"
            attempt(lambda: create_table_artifact(rows, key=key_of("figures", run), description=about))

    def _is_due(self, run: StageRun) -> bool:
        now = time.monotonic()
        due = in_task() and now - self.shown.get(run, 0.0) >= SECONDS_BETWEEN_UPDATES
        if due:
            self.shown[run] = now
        return due

    def _show(self, run: StageRun, share: float, text: str) -> None:
        if run in self.bars:
            update_progress_artifact(self.bars[run], progress=share, description=text)
        else:
            made = create_progress_artifact(share, key=key_of("progress", run), description=text)
            self.bars[run] = made  # type: ignore[assignment]


def in_task() -> bool:
    """Whether this code runs inside a Prefect task run."""
    return TaskRunContext.get() is not None


def say(text: str, level: int = logging.INFO) -> None:
    """Write a line to the logs of the current task run, if there is one."""
    if in_task():
        get_run_logger().log(level, "%s", text)


def attempt(show: Callable[[], Any]) -> None:
    """Show something that the stage can do without."""
    try:
        show()
    except Exception as error:
        logging.getLogger(__name__).warning("not shown in Prefect: %s: %s", type(error).__name__, error)


def figures_of(event: dict[str, Any]) -> str:
    """Return `120 of 400 steps, loss 2.31, tokens_per_second 12500`."""
    figures = [f"{name} {value:.4g}" for name, value in event.get("figures", {}).items()]
    return ", ".join([f"{event['done']:g} of {event['total']:g} {event['unit']}", *figures])


def key_of(kind: str, run: StageRun) -> str:
    """Return an artifact's key: lowercase letters, digits and dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{run.title}".lower()).strip("-")
