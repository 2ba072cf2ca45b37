"""What a Hugging Face trainer does, as events: steps, curves, and checkpoints that are committed or absent."""

import shutil
import time
from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from containers.checkpoints import commit
from containers.out import Out

CURVES = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "gradient_norm"}
"""What every trainer logs -> what it is called here."""


class Reporter(TrainerCallback):
    """Turns a trainer's steps into events and commits its checkpoints."""

    def __init__(self, out: Out, curves: Mapping[str, str] | None = None, shown: tuple[str, ...] = ("loss",)) -> None:
        """`curves`: further names in the trainer's log -> their names here; `shown` stand beside the progress bar."""
        self.out = out
        self.curves = {**CURVES, **(curves or {})}
        self.shown = shown
        self.seconds = 0.0
        """Of steps alone: the clock stands still while a checkpoint is saved or a validation loss measured."""
        self.spoke = 0.0
        self.figures: dict[str, float] = {}

    def attach(self, trainer: Trainer) -> None:
        """Take the place of the trainer's own printing."""
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock of the steps."""
        self.began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say how far training is, once a second."""
        self.seconds += time.monotonic() - self.began
        if time.monotonic() - self.spoke >= 1 or state.global_step == state.max_steps:
            self.spoke = time.monotonic()
            self.out.progress(state.global_step, state.max_steps, "steps", **self.figures)
        self.began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append one point of the curves."""
        if not logs or "loss" not in logs:
            return
        point = self.point(
            {ours: float(logs[name]) for name, ours in self.curves.items() if logs.get(name) is not None}
        )
        self.figures = {name: point[name] for name in self.shown if name in point}
        self.out.metrics(state.global_step, **point)
        self.out.record(loss=point["loss"])

    def point(self, logged: dict[str, float]) -> dict[str, float]:
        """Return what is appended for what the trainer logged."""
        return logged

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Commit what the trainer has just saved (only committed checkpoints are gone on from); older ones go."""
        commit(self.out.work / f"checkpoint-{state.global_step}", state.global_step)
        for folder in self.out.work.glob("checkpoint-*"):  # the trainer's own rotation counts torn ones
            if folder.name.removeprefix("checkpoint-").isdigit() and folder.name != f"checkpoint-{state.global_step}":
                shutil.rmtree(folder)
        self.began = time.monotonic()
