"""The loop: step, report, checkpoint, look at the model; and again from the last checkpoint after a crash."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

from containers.contract import StageError
from containers.formats import ChatFormat
from containers.out import Out
from containers.pretrain.engine import Engine, Step
from containers.pretrain.measure import Yardstick, answer
from containers.pretrain.packing import Batch, Order, Rows
from containers.pretrain.saving import save_checkpoint
from containers.pretrain.schedule import Schedule

POINTS = 200
"""Points of each curve, whatever the length of the run."""
QUIET_SECONDS = 2.0


@dataclass
class Pace:
    """Tokens since the last report, and since when."""

    tokens: int = 0
    since: float = field(default_factory=time.monotonic)

    def per_second(self) -> float:
        """Return the rate since the last call and begin anew."""
        now = time.monotonic()
        rate = self.tokens / max(1e-9, now - self.since)
        self.tokens, self.since = 0, now
        return rate


@dataclass
class Training:
    """Everything that the loop needs; `history` is what checkpoints carry and the card shows."""

    engine: Engine
    schedule: Schedule
    rows: Rows
    yardstick: Yardstick
    chat: ChatFormat
    history: dict[str, Any]
    out: Out

    def carry_on(self, step: int) -> None:
        """Train from `step` steps done to the end of the schedule."""
        order = Order(len(self.rows), self.engine.config.seed)
        pace, saved = Pace(), time.monotonic()
        self.look(step)
        while step < self.schedule.steps:
            rate = self.schedule.learning_rate(step)
            taken = self.engine.step(self.batches(order, step), rate)
            step, last = step + 1, step + 1 == self.schedule.steps
            pace.tokens += taken.targets
            saving = last or time.monotonic() - saved >= self.engine.config.checkpoint_seconds
            if saving or self.on_curve(step) or time.monotonic() - pace.since > QUIET_SECONDS:
                self.report(step, taken, rate, pace)
            if saving:
                save_checkpoint(self.engine, step, self.history, self.out)
                saved = time.monotonic()
            self.look(step)

    def batches(self, order: Order, step: int) -> list[Batch]:
        """Return the micro-batches of one global batch."""
        config = self.engine.config
        numbers = order.numbers(step, config.batch_size)
        micro = config.micro_batch_size
        return [self.rows.take(numbers[i : i + micro], micro) for i in range(0, len(numbers), micro)]

    def on_curve(self, step: int) -> bool:
        """Whether `step` is a point of the curve."""
        return step % max(1, self.schedule.steps // POINTS) == 0 or step == self.schedule.steps

    def report(self, step: int, taken: Step, rate: float, pace: Pace) -> None:
        """Tell how it goes; raises StageError when the loss is no longer a number."""
        loss, norm = float(taken.nats), float(taken.gradient_norm)
        # fp16's scaler skips steps whose gradient overflows, and tries again with a smaller scale.
        skipped = not math.isfinite(norm) and self.engine.scaler.is_enabled()
        if not math.isfinite(loss) or not (math.isfinite(norm) or skipped):
            raise StageError(
                f"loss {loss}, gradient {norm} at step {step:,} of {self.schedule.steps:,}: lower "
                f"pretrain.learning_rate ({self.engine.config.learning_rate:g}) or raise warmup_share; "
                "the last committed checkpoint stays"
            )
        speed = pace.per_second()
        self.out.progress(step, self.schedule.steps, "steps", loss=loss, tokens_per_second=speed)
        point = {"loss": loss, "learning_rate": rate} | ({} if skipped else {"gradient_norm": norm})
        self.out.metrics(step, **point, tokens_per_second=speed)
        if self.on_curve(step):
            self.history["curve"].append({"step": step, **point})

    def look(self, step: int) -> None:
        """Measure and question the model where the schedule says so and it has not been done yet."""
        share = step / self.schedule.steps
        measured, answers = self.history["bits_per_byte"], self.history["answers"]
        if self.schedule.measured(step) and all(point["step"] != step for point in measured):
            bits = self.yardstick.bits_per_byte(self.engine)
            measured.append({"step": step, "share": share, "bits_per_byte": bits})
            self.out.metrics(step, validation_bits_per_byte=bits)
        if self.schedule.answered(step) and all(point["step"] != step for point in answers):
            text = answer(self.engine, self.chat, self.engine.config.prompt)
            answers.append({"step": step, "share": share, "answer": text})
            self.out.say(f"at {share:.0%}: {self.engine.config.prompt!r} -> {text!r}")
