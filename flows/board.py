"""The live table of a run: a listener that draws on a terminal, and prints plain lines where there is none."""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from containers.contract import Request, Result
from infra.launch import StageRun
from infra.runs import status_of

MARKS = {"waiting": "dim", "running": "cyan", "cached": "blue", "done": "green", "failed": "red", "stopped": "yellow"}
SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Row:
    """One stage as it is shown."""

    title: str
    status: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    note: str = ""
    said: float = 0.0
    paced: tuple[float, float] | None = None
    """When the first progress in this unit came, and how far it was: the pace leaves preparation out."""

    @property
    def elapsed(self) -> float:
        """Seconds so far, or in all."""
        return time.monotonic() - self.began if self.status == "running" else self.seconds

    @property
    def eta(self) -> float | None:
        """Seconds to go at the pace so far, once there is a pace."""
        if self.status != "running" or not self.paced or self.done <= self.paced[1]:
            return None
        since, first = self.paced
        return (time.monotonic() - since) * (self.total - self.done) / (self.done - first)


class Board:
    """Rows of stages; expected ones wait until they begin."""

    def __init__(self, console: Console, expected: tuple[str, ...] = ()) -> None:
        """Show on `console`; `expected` are the titles of the stages that a plan foresees."""
        self.console = console
        self.rows = {title: Row(title) for title in expected}
        self.turn = threading.RLock()
        live = console.is_terminal
        self.live = Live(self, console=console, refresh_per_second=4, transient=False) if live else None

    def __enter__(self) -> "Board":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def stage_started(self, run: StageRun, request: Request, cached: bool) -> None:
        """Show that a stage begins."""
        row = self.rows.setdefault(run.title, Row(run.title))
        with self.turn:
            row.status, row.began = "cached" if cached else "running", time.monotonic()
        if not cached:
            self._say(row, "started")

    def stage_event(self, run: StageRun, event: dict[str, Any]) -> None:
        """Show how far it is, its last figures, its warnings."""
        row = self.rows[run.title]
        if event["event"] == "progress":
            with self.turn:
                if row.unit != event["unit"]:
                    row.paced, row.figures = (time.monotonic(), event["done"]), {}
                row.done, row.total, row.unit = event["done"], event["total"], event["unit"]
                row.figures |= event.get("figures", {})
            if time.monotonic() - row.said > SECONDS_BETWEEN_LINES:
                self._say(row, progress_text(row))
        elif event["event"] == "metrics" and "loss" in event["values"]:
            row.figures["loss"] = event["values"]["loss"]
        elif event["event"] == "log" and event["level"] == "warning":
            self.console.print(Text(f"{run.title}: {event['text']}", style="yellow"))
        elif event["event"] == "log":
            row.note = event["text"].splitlines()[0] if event["text"] else ""

    def stage_ended(self, run: StageRun, outcome: Result | BaseException) -> None:
        """Show what became of it."""
        row = self.rows[run.title]
        with self.turn:
            row.seconds = time.monotonic() - row.began
            if isinstance(outcome, BaseException):
                row.status = status_of(outcome)
            elif row.status != "cached":
                row.status = "done"
        row.note = ""
        self._say(row, f"{row.status} in {duration(row.seconds)}" if row.status != "cached" else "cached")

    def __rich__(self) -> Table:
        """Return the table as it is now."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name, width in (("stage", 18), ("", 8), ("progress", 22), ("time", 7)):
            table.add_column(name, min_width=width, no_wrap=True, header_style="dim")
        table.add_column("figures", header_style="dim", overflow="ellipsis", no_wrap=True, ratio=1)
        with self.turn:
            for row in self.rows.values():
                table.add_row(*cells(row))
        return table

    def _say(self, row: Row, text: str) -> None:
        row.said = time.monotonic()
        if not self.live:
            self.console.print(f"{time.strftime('%H:%M:%S')}  {row.title:20} {text}", highlight=False, soft_wrap=True)


def cells(row: Row) -> tuple[Any, ...]:
    """Return one row of the table."""
    style = MARKS[row.status]
    bar = ProgressBar(total=row.total, completed=row.done, width=22) if row.status == "running" and row.total else ""
    clock = duration(row.elapsed) if row.status not in ("waiting", "cached") else ""
    text = progress_text(row) if row.status == "running" else ""
    return Text(row.title, style=style), Text(row.status, style=style), bar, clock, Text(text or row.note, style="dim")


def progress_text(row: Row) -> str:
    """Return `120/400 steps  loss 2.31  12.5k tokens/s  31 s to go`."""
    parts = [f"{number(row.done)}/{number(row.total)} {row.unit}"] if row.total else []
    figures = dict(row.figures)
    speed = figures.pop("tokens_per_second", None)
    parts += [f"{name.replace('_', ' ')} {value:.3g}" for name, value in list(figures.items())[:3]]
    parts += [f"{number(speed)} tokens/s"] if speed else []
    parts += [f"{duration(row.eta)} to go"] if row.eta is not None else []
    return "  ".join(parts) or row.note


def number(value: float) -> str:
    """Return a count that fits a column: 4.5, 950, 12.5k, 3.2M."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= scale:
            return f"{value / (1e3 if letter == 'k' else scale):.1f}{letter}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Return 0.4 s, 31 s, 4:05 or 2:10:00."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
