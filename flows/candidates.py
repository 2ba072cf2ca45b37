"""Answers for people to rank, from a model of a run: `slipway candidates`. What they rank comes back as preferences.

    slipway candidates latest max_prompts=100 --out answers.jsonl
    slipway candidates latest --out tasks.json --format label-studio

Ranked, the file is named in a recipe: `data: {preferences: {sources: [{path: answers.jsonl}]}}`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console

from containers.candidates.contract import CandidatesConfig
from containers.contract import Artifact, Candidates, Dataset, Model, StageError, artifacts_in
from containers.entrypoint import stage_named
from flows.board import Board
from flows.mistakes import explain
from flows.recipe import apply, recipe_names
from infra.embedded import prefect_environment
from infra.launch import Launch, launching
from infra.runners.choice import runner_of
from infra.runs import RunRecord, find_run, read_record
from infra.settings import Settings
from infra.store import Store

Format = Literal["jsonl", "label-studio"]
SCREEN = """<View>
  <Text name="prompt" value="$text"/>
  <List name="answers" value="$items" title="Drag the best answer to the top, the worst to the bottom"/>
  <Ranker name="ranking" toName="answers"/>
</View>
"""
"""Label Studio's labelling configuration; its result is the order of the items' ids."""


def export_candidates(run: str, model: str, overrides: Sequence[str], out: Path, form: Format) -> None:
    """Draw answers of a run's model to that run's lessons (kept in the store), and write them for people to rank."""
    settings, console = Settings(), Console()
    record = read_record(run_of(settings, run))
    store = Store(settings.store)
    config = config_of(overrides)
    speaker, prompts = model_of(record, store, model), lessons_of(record, store)
    os.environ.update(prefect_environment(settings))
    from tasks.candidates import candidates

    launch = Launch(settings, store, runner_of(settings, ("candidates",)), (Board(console),))
    with launching(launch):
        made = candidates(speaker, prompts, config)
    rows = rows_in(made)
    if form == "jsonl":
        out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        console.print(f"{len(rows)} prompts in {out}: put the places of `candidates`, best first, in `ranking`")
        return
    screen = out.with_suffix(".xml")
    out.write_text(json.dumps([task_of(row) for row in rows], ensure_ascii=False, indent=1), encoding="utf-8")
    screen.write_text(SCREEN, encoding="utf-8")
    console.print(f"{len(rows)} tasks in {out}, the labelling configuration in {screen}; export as JSON when ranked")


def run_of(settings: Settings, name: str) -> Path:
    """Return the folder of a run, or of the newest run of a recipe; raises StageError."""
    if name in recipe_names() or name.endswith((".yaml", ".yml")):
        runs = sorted(settings.runs.glob(f"{Path(name).stem}-*/run.json"))
        if not runs:
            raise StageError(f"recipe {name} has not been run yet: `slipway run {name}` trains the model that answers")
        return runs[-1].parent
    return find_run(settings, name)


def config_of(overrides: Sequence[str]) -> CandidatesConfig:
    """Return the configuration with `key=value` changes; raises StageError naming what is wrong."""
    values: dict[str, Any] = {}
    for override in overrides:
        apply(override, values)
    try:
        return CandidatesConfig.model_validate(values)
    except ValidationError as error:
        raise StageError("\n".join(explain(error, CandidatesConfig, "candidates", {}))) from error


def made_in(record: RunRecord, store: Store) -> list[tuple[str, str, Artifact, Any]]:
    """Return (stage, label, artifact, what the stage was asked) of everything that a run made, in its order."""
    found = []
    for entry in record.stages:
        if entry.address and entry.status in ("done", "cached"):
            published = store.load(entry.address)
            outputs = published.outputs(stage_named(entry.name))
            found += [(entry.name, entry.label, made, published.request) for _, made in artifacts_in(outputs)]
    return found


def model_of(record: RunRecord, store: Store, name: str) -> Model:
    """Return a model of a run by the name that it was evaluated under, else by its stage; `chat` if none is named."""
    made = made_in(record, store)
    names = {request.inputs["model"]["digest"]: label for stage, label, _, request in made if stage == "evaluate"}
    models = {names.get(m.digest, stage): m for stage, _, m, _ in made if isinstance(m, Model)}
    chosen = name or ("chat" if "chat" in models else next(reversed(models), ""))
    if chosen not in models:
        raise StageError(f"{record.run} has no model {chosen!r}: choose from {', '.join(models) or 'none yet'}")
    return models[chosen]


def lessons_of(record: RunRecord, store: Store) -> Dataset:
    """Return the instructions of a run; raises StageError where it has none."""
    for _, _, made, _ in made_in(record, store):
        if isinstance(made, Dataset) and made.role == "instructions":
            return made
    raise StageError(f"{record.run} has no instructions to take prompts from")


def rows_in(candidates: Candidates) -> list[dict[str, Any]]:
    """Return the rows of candidates.jsonl."""
    text = (candidates.path / "candidates.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def task_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as a task that Label Studio imports; what `data` reads back lies beside what people see."""
    text = "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in row["prompt"])
    items = [
        {"id": str(place), "title": f"Answer {place + 1}", "body": answer}
        for place, answer in enumerate(row["candidates"])
    ]
    kept = {name: value for name, value in row.items() if name not in ("ranking", "rater")}
    return {"data": {"text": text, "items": items, **kept}}
