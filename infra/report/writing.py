"""Gather what a run left in the store and write report.json and report.html into the run's folder."""

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from containers.contract import Endpoint, Scores
from containers.out import write_last
from infra.launch import Launch, StageRecord, current_launch
from infra.pins import pins_in
from infra.report.changes import changes_of
from infra.report.page import StageView, rendered
from infra.report.shape import PromptLine, QuantizationLine, ReportFacts, ScoreLine, StageLine
from infra.runs import RunRecord, current_run


def write_report(endpoint: Endpoint | None, scores: Sequence[Scores]) -> Path:
    """Write the report of the current run; return the page's path."""
    launch, run = current_launch(), current_run()
    stages = [view_of(record, launch) for record in launch.stages]
    facts = facts_of(run.record, launch.stages, stages, scores, endpoint)
    write_last(run.folder / "report.json", facts.model_dump_json(indent=1))
    description = str(run.record.config.get("description", ""))
    page = run.folder / "report.html"
    write_last(page, rendered(facts, description, stages, reproduce(run.record)))
    return page


def facts_of(
    run: RunRecord,
    records: Sequence[StageRecord],
    stages: Sequence[StageView],
    scores: Sequence[Scores],
    endpoint: Endpoint | None,
) -> ReportFacts:
    """Return report.json's content."""
    read = [(s.model, json.loads((s.path / "scores.json").read_text(encoding="utf-8"))) for s in scores]
    lines = tuple(ScoreLine(model=model, **line) for model, found in read for line in found["measures"])
    cards = {stage.name: stage.card for stage in stages}
    results = [record.result for record in records if record.result]
    return ReportFacts(
        run=run.run,
        recipe=run.recipe,
        flow=str(run.config.get("flow", "")),
        started=datetime.fromtimestamp(run.began, UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - run.began, 1),
        stages=tuple(map(line_of, records)),
        scores=lines,
        changes=tuple(changes_of(lines, {s.model: s.path / "items.parquet" for s in scores})),
        quantization=tuple(QuantizationLine(**row) for row in quantization_rows(stages)),
        prompts=tuple(same_prompts([(model, found.get("prompts", [])) for model, found in read])),
        endpoint=endpoint.url if endpoint else None,
        environment={name: value for result in results for name, value in result.environment.items()},
        git=run.git or None,
        cards=cards,
        pinned=dict(pins_in(run.config)),
    )


def line_of(record: StageRecord) -> StageLine:
    """Return the line of one stage run."""
    return StageLine(
        name=name_of(record),
        status="failed" if record.status == "stopped" else record.status,
        seconds=round(record.seconds, 3),
        fingerprint=record.fingerprint,
        metrics=record.metrics,
    )


def name_of(record: StageRecord) -> str:
    """Return `evaluate-chat` for the run of evaluate labelled chat."""
    return f"{record.name}-{record.label}" if record.label else record.name


def view_of(record: StageRecord, launch: Launch) -> StageView:
    """Return what the page shows of a stage run, read from its folder in the store."""
    folder = launch.store.root / record.address
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    card = folder / "outputs" / "card" / "card.json"
    return StageView(
        name=name_of(record),
        word=record.name,
        label=record.label,
        metrics=record.metrics,
        config=request["config"],
        inputs=dict(digests(request["inputs"])),
        card=json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {},
        points=points_of(folder / "events.jsonl"),
    )


def digests(inputs: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, digest) of each artifact in a request's inputs."""
    for name, value in inputs.items():
        if isinstance(value, dict) and "digest" in value:
            yield prefix + name, value["digest"]
        elif isinstance(value, dict):
            yield from digests(value, f"{name}.")
        elif isinstance(value, list):
            yield from digests({str(i): item for i, item in enumerate(value)}, f"{name}.")


def points_of(events: Path) -> dict[str, list[tuple[float, float]]]:
    """Return each curve of a stage: metric -> (step, value), the last value of a step winning."""
    curves: dict[str, dict[float, float]] = {}
    for line in events.read_text(encoding="utf-8").splitlines() if events.is_file() else ():
        event = json.loads(line)
        if event["event"] == "metrics":
            for name, value in event["values"].items():
                curves.setdefault(name, {})[event["step"]] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


def quantization_rows(stages: Sequence[StageView]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the quantize card's table, cut to the report's columns."""
    for stage in stages:
        for row in stage.card.get("formats", ()) if stage.word == "quantize" else ():
            yield {name: row.get(name) for name in QuantizationLine.model_fields}


def same_prompts(answers: Sequence[tuple[str, list[dict[str, str]]]]) -> Iterator[PromptLine]:
    """Yield each fixed prompt with the answer of every model."""
    prompts = dict.fromkeys(line["prompt"] for _, lines in answers for line in lines)
    for prompt in prompts:
        found = {model: line["answer"] for model, lines in answers for line in lines if line["prompt"] == prompt}
        yield PromptLine(prompt=prompt, answers=found)


def reproduce(run: RunRecord) -> str:
    """Return the commands that make this run again."""
    commit = run.git.removesuffix("+")
    lines = [f"git checkout {commit}"] if commit else []
    called = (run.arguments.get("recipe_name", run.recipe), *run.arguments.get("overrides", ()))
    lines += ["make setup", shlex.join(["./slipway", "run", *map(str, called)])]
    note = "\n# the checkout had changes that no commit holds" if run.git.endswith("+") else ""
    return "\n".join(lines) + note
