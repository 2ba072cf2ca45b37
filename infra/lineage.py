"""Where a bundle comes from: the recipe, the commit and the stage runs of this launch, as its provenance says it."""

from typing import Any

from infra.launch import Launch, StageRecord
from infra.runs import current_run


def lineage_of(launch: Launch) -> dict[str, Any]:
    """Return plain JSON values: recipe, git, one line per data set, and per stage its fingerprint and outputs."""
    made = sorted((s for s in launch.stages if s.result), key=lambda stage: (stage.name, stage.label))
    try:
        record = current_run().record
    except LookupError:
        named = {}
    else:
        named = {"recipe": record.recipe, "git": record.git}
    data = [line for stage in made if stage.name == "data" for line in datasets_of(stage)]
    return {**named, "data": data, "stages": [described(stage) for stage in made]}


def described(stage: StageRecord) -> dict[str, Any]:
    """Return one stage run: who, its place in the store, the digests of what it made."""
    outputs = stage.result.outputs if stage.result else {}
    digests = {
        name: value["digest"] for name, value in outputs.items() if isinstance(value, dict) and "digest" in value
    }
    told = {"stage": stage.name, "label": stage.label, "address": stage.address, "fingerprint": stage.fingerprint}
    return {**told, "outputs": digests}


def datasets_of(stage: StageRecord) -> list[str]:
    """Return what the model card says of each data set that a stage made."""
    outputs = stage.result.outputs.values() if stage.result else ()
    made = [value for value in outputs if isinstance(value, dict) and value.get("kind") == "dataset"]
    return [f"{d['role']}: {rows_in(d['rows'])} (digest {d['digest'][:12]})" for d in made]


def rows_in(rows: dict[str, int]) -> str:
    """Return `1,200 train, 40 test`, splits without rows left out."""
    return ", ".join(f"{count:,} {split}" for split, count in rows.items() if count) or "no rows"
