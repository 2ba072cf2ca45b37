"""The outside half of the contract: fingerprint, reuse or run, relay events, verify, publish, raise.

`run_stage` is all that a task calls. Settings, store, runner and listeners come from the current launch.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from containers.code import Code
from containers.contract import Config, Frozen, Request, Result, Stage
from infra.events import Tail
from infra.failures import BadInput, Cancelled, FolderBusy, StageFailed, failure_of, tail_of
from infra.fingerprint import components, fingerprint_of
from infra.gpus import leased
from infra.launch import Launch, StageRecord, StageRun, Status, current_launch
from infra.planning import current_plan, recorded, reused
from infra.runners import GPU, Attempt
from infra.runners.environment import environment_of
from infra.staging import InputGuard, linked, locked, prepare, remove
from infra.store import Published, StoreError

__all__ = ["BadInput", "Cancelled", "FolderBusy", "StageFailed", "run_stage"]

I = TypeVar("I", bound=Frozen)  # noqa: E741 - as in containers.contract
O = TypeVar("O", bound=Frozen)  # noqa: E741
POLL_SECONDS = 0.02
DUMP_SECONDS = 1.0
LEFTOVERS = ("work", "inputs", "lock")
"""What a stage folder sheds once it is in the store."""


def run_stage(stage: Stage[Any, I, O], config: Config, inputs: I, label: str = "") -> O:
    """Return the stage's outputs, made now or reused from the store; artifact paths are absolute.

    Raises BadInput (a person can mend it), StageFailed (the stage ended badly), FolderBusy or Cancelled.
    """
    plan = current_plan()
    if plan:
        foreseen: O = plan.foresee(stage, config, inputs, label)
        return foreseen
    launch = current_launch()
    code = Code(stage.word)
    parts = components(stage, config, inputs, code)
    request = Request(
        stage=stage.word,
        label=label,
        fingerprint=fingerprint_of(parts),
        code=code.digest,
        config=config.model_dump(mode="json"),
        inputs=linked(inputs),
    )
    found = launch.store.find(stage.word, request.fingerprint)
    telling = Telling(launch, request, parts)
    telling.start(cached=found is not None)
    try:
        published = found or make(stage, request, inputs, telling)
    except BaseException as error:
        telling.end("failed" if isinstance(error, Exception) and not isinstance(error, Cancelled) else "stopped", error)
        raise
    telling.end("cached" if found else "done", published.result)
    outputs: O = published.outputs(stage)
    return outputs


def tell_reused(published: Published) -> None:
    """Tell of the stage run that a recipe pins as of one that was reused; it is not compared with the code of now."""
    plan, launch = current_plan(), current_launch()
    parts = recorded(launch.store, published.address)
    if plan:
        plan.launch.stages.append(reused(published, parts))
        return
    telling = Telling(launch, published.request, parts)
    telling.start(cached=True)
    telling.end("cached", published.result)


class Telling:
    """Tells the launch and its listeners of one stage run."""

    def __init__(self, launch: Launch, request: Request, parts: dict[str, Any]) -> None:
        """Prepare to tell of the run that `request` asks for."""
        self.launch, self.request, self.parts = launch, request, parts
        published = launch.store.folder_of(request.stage, request.fingerprint)
        self.run = StageRun(
            name=request.stage,
            label=request.label,
            fingerprint=request.fingerprint,
            address=published.name,
            folder=launch.settings.home.absolute() / "staging" / published.name,
            published=published,
        )
        self._began = time.monotonic()

    def start(self, *, cached: bool) -> None:
        """Tell that the run begins, or that it need not."""
        self._tell("stage_started", self.request, cached)

    def event(self, event: dict[str, Any]) -> None:
        """Tell what the stage said."""
        self._tell("stage_event", event)

    def say(self, text: str) -> None:
        """Tell a line of the host's own."""
        self.event({"time": round(time.time(), 3), "event": "log", "level": "info", "text": text})

    def end(self, status: Status, outcome: Result | BaseException) -> None:
        """Note what became of the run, then tell of it."""
        result = outcome if isinstance(outcome, Result) else None
        self.launch.stages.append(
            StageRecord(
                name=self.run.name,
                label=self.run.label,
                status=status,
                seconds=round(time.monotonic() - self._began, 3),
                fingerprint=self.run.fingerprint,
                address=self.run.address,
                components=self.parts,
                metrics=result.metrics if result else {},
                result=result,
                error="" if result else str(outcome),
            )
        )
        self._tell("stage_ended", outcome)

    def _tell(self, what: str, *values: Any) -> None:
        for listener in self.launch.listeners:
            try:
                getattr(listener, what)(self.run, *values)
            except Exception:
                logging.getLogger("slipway").exception("%s could not take %s", type(listener).__name__, what)


def make(stage: Stage[Any, Any, Any], request: Request, inputs: Frozen, telling: Telling) -> Published:
    """Run the stage in its staging folder and publish what it made."""
    store, folder = telling.launch.store, telling.run.folder
    with locked(folder):
        made_meanwhile = store.find(request.stage, request.fingerprint)
        if made_meanwhile:
            return made_meanwhile
        telling.launch.runner.reap(folder)
        guard = InputGuard(inputs)
        published = recovered(request, telling)
        if not published:
            prepare(folder, request, inputs)
            try:
                attempt(stage, telling)
            except BaseException:
                remove(folder / "outputs")
                raise
            guard.check()
            published = store.publish(folder)
    for name in LEFTOVERS:
        remove(published.folder / name)
    return published


def recovered(request: Request, telling: Telling) -> Published | None:
    """Publish a stage that had ended well when its host was killed before it could."""
    file = telling.run.folder / "result.json"
    if not file.is_file():
        return None
    if Result.model_validate_json(file.read_text(encoding="utf-8")).fingerprint != request.fingerprint:
        return None
    try:
        return telling.launch.store.publish(telling.run.folder)
    except StoreError:
        return None


def attempt(stage: Stage[Any, Any, Any], telling: Telling) -> None:
    """Run one attempt to its end; returns only if it left a result of its own."""
    folder = telling.run.folder
    environment = environment_of(stage, folder, telling.launch.settings)
    with on_a_gpu(telling) as gpu:
        running = telling.launch.runner.start(folder, stage, environment | ({GPU: gpu} if gpu else {}))
        try:
            code = follow(running, stage, telling)
        except BaseException:
            running.stop()
            raise
    file = folder / "result.json"
    if code != 0 or not file.is_file():
        raise failure_of(telling.run.title, code, folder, memory_kills=running.memory_kills)
    result = Result.model_validate_json(file.read_text(encoding="utf-8"))
    if (result.stage, result.fingerprint) != (telling.run.name, telling.run.fingerprint):
        raise StageFailed(f"{file} is the result of {result.stage} {result.fingerprint}, not of {telling.run.address}")


@contextmanager
def on_a_gpu(telling: Telling) -> Iterator[str]:
    """Hold a GPU while a stage that takes one runs; yield its UUID, empty for none. Raises BadInput."""
    device = telling.request.config.get("device", "cpu")
    if device not in ("auto", "cuda"):
        yield ""
        return
    gpus = telling.launch.runner.gpus()
    if device == "cuda" and not gpus.names:
        raise BadInput(f"{telling.run.title} asks for device: cuda, and there is no GPU here: say `auto` or `cpu`")
    with leased(gpus, telling.run.title, telling.say, telling.launch.cancelled) as gpu:
        yield gpu


def follow(running: Attempt, stage: Stage[Any, Any, Any], telling: Telling) -> int:
    """Relay events until the attempt ends; return its exit code.

    Raises StageFailed, with every thread's stack, after `stage.stall_seconds` of silence; Cancelled when asked to.
    """
    tail = Tail(telling.run.folder / "events.jsonl")
    while True:
        code = running.poll()
        for event in tail.read():
            telling.event(event)
        if code is not None:
            return code
        if telling.launch.cancelled.is_set():
            raise Cancelled(f"{telling.run.title} was stopped; run again to continue from its last checkpoint")
        if time.monotonic() - tail.silent_since > stage.stall_seconds:
            raise stalled(running, stage, telling)
        time.sleep(POLL_SECONDS)


def stalled(running: Attempt, stage: Stage[Any, Any, Any], telling: Telling) -> StageFailed:
    """Return the error for a silent stage: where each of its threads stands."""
    running.dump()
    time.sleep(DUMP_SECONDS)
    log = telling.run.folder / "log.txt"
    stacks = tail_of(log, lines=60)
    return StageFailed(
        f"{telling.run.title} said nothing for {stage.stall_seconds} s and was stopped; its threads stood here:\n"
        f"{stacks}\n  log: {log}"
    )
