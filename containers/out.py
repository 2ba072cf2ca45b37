"""What a stage writes to: artifacts, a card for people, checkpoints, and the events that others relay.

A stage talks to nobody. It appends lines to `events.jsonl`; the host tails that file and alone writes to MLflow,
Prefect and the terminal.
"""

import json
import os
import time
from pathlib import Path
from typing import Any


class Out:
    """The writing half of a stage folder."""

    def __init__(self, folder: Path) -> None:
        """Open the stage folder at `folder`; its outputs/ and work/ are made when missing."""
        self.folder = folder
        self.outputs = folder / "outputs"
        self.work = folder / "work"
        self.outputs.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self.recorded: dict[str, float] = {}
        self._events = (folder / "events.jsonl").open("a", encoding="utf-8", buffering=1)

    def artifact(self, name: str) -> Path:
        """Return outputs/<name>/, made now: the bytes of one artifact (no clock, host or absolute path in them)."""
        path = self.outputs / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def card(self) -> Path:
        """outputs/card/: `card.json` for the report and MLflow, pages and pictures for people."""
        return self.artifact("card")

    def write_card(self, **values: Any) -> None:
        """Write card.json: what this stage did to its inputs, in plain JSON values."""
        text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False)
        (self.card / "card.json").write_text(text + "\n", encoding="utf-8")

    def metrics(self, step: int, **values: float) -> None:
        """Append one point of each curve; `step` counts optimizer steps (or rows, where nothing trains)."""
        self._append("metrics", step=step, values=values)

    def progress(self, done: float, total: float, unit: str = "steps", **figures: float) -> None:
        """Append how far the stage is; `figures` (loss, tokens_per_second) stand beside the bar."""
        self._append("progress", done=done, total=total, unit=unit, figures=figures)

    def say(self, text: str, level: str = "info") -> None:
        """Append a log line (`info`, `warning` or `error`) for people."""
        self._append("log", level=level, text=text)

    def record(self, **values: float) -> None:
        """Keep final figures for result.json (and the report): the last value of a name wins."""
        self.recorded.update({name: float(value) for name, value in values.items()})

    def close(self) -> None:
        """Close the event file."""
        self._events.close()

    def _append(self, kind: str, **values: Any) -> None:
        event = {"time": round(time.time(), 3), "event": kind, **values}
        self._events.write(json.dumps(event, ensure_ascii=False) + "\n")


def write_last(path: Path, text: str) -> None:
    """Write `text` so that `path` is either absent or complete: tmp, fsync, rename, fsync of the folder."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
