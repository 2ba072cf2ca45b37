"""What a run would do, found by walking its flow with nothing started: stages are foreseen, not run.

A stage whose inputs are all in the store has a fingerprint, so the store says whether it is reused, and what differs
from its last run otherwise. Below a stage that would run, digests are not known yet: everything there runs as well.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from containers.code import Code
from containers.contract import Adapter, Artifact, Frozen, Stage, artifacts_in
from infra.fingerprint import components, differences, fingerprint_of
from infra.launch import Launch, StageRecord
from infra.runners.choice import runner_of
from infra.settings import Settings
from infra.store import Published, Store

FORESEEN = "foreseen:"
SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Foreseen:
    """One stage of a plan."""

    stage: Stage[Any, Any, Any]
    label: str
    config: Frozen
    inputs: Frozen
    reused: bool
    reason: str
    """Why it runs, or which address is reused."""
    before: Published | None
    """Its newest run in the store, for what it cost."""

    @property
    def title(self) -> str:
        """`sft`, or `data corpus` for one of several."""
        return f"{self.stage.word} {self.label}".strip()

    @property
    def is_below_another(self) -> bool:
        """Whether it takes something that is not made yet."""
        return any(is_foreseen(artifact) for _, artifact in artifacts_in(self.inputs))


@dataclass
class Plan:
    """The launch of a walk: it answers for every stage what would happen."""

    launch: Launch
    """What stages find around them; its record of stages holds those that are reused."""
    name: str
    """The run's name, from its recipe's."""
    stages: list[Foreseen] = field(default_factory=list)

    def foresee(self, stage: Stage[Any, Any, Any], config: Frozen, inputs: Frozen, label: str = "") -> Any:
        """Note what would happen to a stage; return its stored outputs, or ones that only have a place."""
        before = newest(self.launch.store, stage.word, label)
        waiting = sorted({origin(artifact) for _, artifact in artifacts_in(inputs) if is_foreseen(artifact)})
        found, parts, reason = None, {}, f"reads new {', '.join(waiting)}"
        if not waiting:
            parts = components(stage, config, inputs, Code(stage.word))
            found = self.launch.store.find(stage.word, fingerprint_of(parts))
            reason = found.address if found else first_difference(self.launch.store, before, parts)
        entry = Foreseen(stage, label, config, inputs, bool(found), reason, before)
        self.stages.append(entry)
        if found:
            self.launch.stages.append(reused(found, parts))
        return found.outputs(stage) if found else placeholders(stage.outputs, config, entry.title)


_current: ContextVar[Plan | None] = ContextVar("plan", default=None)


@contextmanager
def planning(settings: Settings, name: str) -> Iterator[Plan]:
    """Make every stage called inside the block foreseen instead of run; `name` is the recipe's."""
    plan = Plan(Launch(settings, Store(settings.store), runner_of(settings)), Path(name).name.removesuffix(".yaml"))
    token = _current.set(plan)
    try:
        yield plan
    finally:
        _current.reset(token)


def current_plan() -> Plan | None:
    """Return the plan of this context, or None where stages really run."""
    return _current.get()


def reused(found: Published, parts: dict[str, Any]) -> StageRecord:
    """Return the record of a stage that is reused."""
    request, result = found.request, found.result
    return StageRecord(
        request.stage, request.label, "cached", 0.0, request.fingerprint, found.address, parts, result.metrics, result
    )  # fmt: skip


def placeholders(outputs: type[Frozen], config: Frozen, title: str) -> Frozen:
    """Return outputs whose artifacts have a kind and a made-up digest, and nothing else."""
    values = {name: placeholder(field.annotation, config, title) for name, field in outputs.model_fields.items()}
    return outputs.model_construct(**values)


def placeholder(annotation: Any, config: Frozen, title: str) -> Any:
    """Return an artifact of the annotated kind; `Model | Adapter` is an adapter unless all weights are trained."""
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        method = getattr(getattr(config, "weights", config), "method", "full")
        is_adapter = Adapter in members and method != "full"
        return placeholder(Adapter if is_adapter else members[0], config, title)
    if get_origin(annotation) in (dict, tuple, list):
        return {} if get_origin(annotation) is dict else ()
    if isinstance(annotation, type) and issubclass(annotation, Artifact):
        return annotation.model_construct(path=Path(FORESEEN), digest=f"{FORESEEN}{title}")
    return None


def is_foreseen(artifact: Artifact) -> bool:
    """Whether an artifact is a placeholder."""
    return artifact.digest.startswith(FORESEEN)


def origin(artifact: Artifact) -> str:
    """Return the title of the stage that a placeholder stands for."""
    return artifact.digest.removeprefix(FORESEEN)


def newest(store: Store, word: str, label: str) -> Published | None:
    """Return the newest published run of a stage and label."""
    mine = [address for address in store.addresses() if address.rpartition("-")[0] == word]
    mine.sort(key=lambda address: (store.root / address / "result.json").stat().st_mtime, reverse=True)
    return next((run for run in map(store.load, mine) if run.request.label == label), None)


def first_difference(store: Store, before: Published | None, parts: dict[str, Any]) -> str:
    """Return which part of the fingerprint changed first, in words."""
    if before is None:
        return "never run before"
    changed = differences_from(store, before, parts)
    if not changed:
        return f"{before.address} is damaged or gone"
    return changed[0] + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")


def differences_from(store: Store, before: Published, parts: dict[str, Any]) -> list[str]:
    """Return one line for each part that differs from a published run's: the config first, the code last."""
    changed = differences(recorded(store, before.address), parts)
    order = ("config", "inputs", "versions", "code")
    changed.sort(key=lambda change: order.index(change[0].split(".")[0]) if change[0].split(".")[0] in order else 9)
    return [f"{name}: {shown(old)} -> {shown(new)}" for name, old, new in changed]


def recorded(store: Store, address: str) -> dict[str, Any]:
    """Return the fingerprint's parts of a published run, as its run noted them; none for one made by hand."""
    file = parts_file(store.root.parent, address)
    parts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return parts


def parts_file(home: Path, address: str) -> Path:
    """Return where the parts of an address's fingerprint are kept, for `slipway why`."""
    return home / "parts" / f"{address}.json"


def shown(value: Any) -> str:
    """Return a value short enough for a line."""
    text = "absent" if value is None else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:12]}..."
