"""From a run's journal to MLflow: the only place that knows MLflow.

One parent run per flow run, one nested run per stage. Every write may be repeated: runs are found again by their
tag, MLflow keeps a metric point once, a parameter has one value. So a reader that stops anywhere goes on from its
last saved position and loses nothing (`infra.relay`).
"""

import json
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from infra.journal import Event, read_from
from infra.settings import Settings

KEY = "slipway.key"
METRICS_A_BATCH, PARAMS_A_BATCH, PARAM_LENGTH, DIGEST_LENGTH = 1000, 100, 6000, 36
STATUS = {"finished": "FINISHED", "done": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "killed": "KILLED"}


class Ledger:
    """One run's pages in MLflow: `enter` takes the journal's events in their order."""

    def __init__(self, settings: Settings, folder: Path, runs: dict[str, str] | None = None) -> None:
        """Open MLflow; `runs` are the ids of the stages' runs as far as they are known ("" is the parent).

        A fresh SQLite database is made here, by one process at a time (several that migrate it at once kill each
        other). Raises what MLflow raises when it is down.
        """
        self.settings, self.folder = settings, folder
        with FileLock(settings.mlflow_home / "migrate.lock"):
            self.client = MlflowClient(settings.tracking_uri, registry_uri=settings.tracking_uri)
            self.experiment = self._experiment()
        self.runs = dict(runs or {})
        self.about = next(iter(read_from(folder)[0]), {})

    def enter(self, events: list[Event]) -> None:
        """Write a stretch of the journal in its order, the points of a curve in batches."""
        points: dict[str, list[Metric]] = {}
        for event in events:
            if event["event"] == "metrics":
                points.setdefault(event["stage"], []).extend(points_of(event))
                continue
            write = getattr(self, f"_{event['event']}", None)
            if write:
                self._log_points(event["stage"], points.pop(event["stage"], []))
                write(event)
        for stage, values in points.items():
            self._log_points(stage, values)

    def end(self, status: str, time: float) -> None:
        """Close what is still open: a run that ended badly leaves nothing RUNNING behind."""
        for stage in self._open_stages():
            self.client.set_terminated(stage.info.run_id, STATUS[status], end_time=milliseconds(time))
        parent = self._run_of("")
        self._log_files(parent, "recipe.json", "run.json", "report.html", "report.json")
        self.client.set_terminated(parent, STATUS[status], end_time=milliseconds(time))

    def _run(self, event: Event) -> None:
        self._log_params(self._run_of("", event), event["config"])

    def _started(self, event: Event) -> None:
        run = self._run_of(event["stage"], event)
        self._log_params(run, event["config"])
        self.client.log_inputs(run, [dataset_input(name, value) for name, value in datasets_in(event["inputs"])])
        if event["event"] == "started":
            self._log_json(run, event["config"], "config.json")
            self._log_json(run, event["inputs"], "inputs.json")

    def _cached(self, event: Event) -> None:
        self._started(event)
        run = self._run_of(event["stage"])
        original = self._original(event["fingerprint"])
        if original:
            self.client.set_tag(run, "original_run", original)

    def _finished(self, event: Event) -> None:
        run = self._run_of(event["stage"])
        step, moment = self._last_step(event), milliseconds(event["time"])
        self._log_points(event["stage"], [Metric(k, v, moment, step) for k, v in event["metrics"].items()])
        if not event["cached"]:
            self._log_stage_files(run, event)
        self._register(event)
        self.client.set_terminated(run, "FINISHED", end_time=moment)

    def _log_stage_files(self, run: str, event: Event) -> None:
        """Keep what people look at: references to the outputs, the result, the card with its samples; no weights."""
        self._log_json(run, event["outputs"], "outputs.json")
        folder = Path(event["folder"])
        if (folder / "result.json").exists():
            self.client.log_artifact(run, str(folder / "result.json"))
        if (folder / "outputs" / "card").exists():
            self.client.log_artifacts(run, str(folder / "outputs" / "card"), "card")

    def _failed(self, event: Event) -> None:
        run = self._run_of(event["stage"])
        self.client.set_tag(run, "error", event.get("error", "")[:PARAM_LENGTH])
        self.client.set_terminated(run, STATUS[event["event"]], end_time=milliseconds(event["time"]))

    _stopped = _failed

    def _end(self, event: Event) -> None:
        self.end(event["status"], event["time"])

    def _register(self, event: Event) -> None:
        """Register a bundle by reference: where it lies and its digest, never its bytes."""
        for artifact in event["outputs"].values():
            if isinstance(artifact, dict) and artifact.get("kind") == "bundle":
                self._register_bundle(event, artifact)
            if isinstance(artifact, dict) and artifact.get("kind") == "endpoint":
                self._alias("served", artifact["bundle"])

    def _register_bundle(self, event: Event, bundle: dict[str, Any]) -> None:
        name = self.about["name"]
        if not self.client.search_registered_models(f"name='{name}'"):
            self.client.create_registered_model(name)
        if not self._versions(bundle["digest"]):
            source = f"slipway:/store/{event['address']}/outputs/{Path(bundle['path']).name}"
            self.client.create_model_version(
                name, source, self._run_of(event["stage"]), tags={"digest": bundle["digest"], "path": bundle["path"]}
            )
        self._alias("candidate", bundle["digest"])

    def _alias(self, alias: str, digest: str) -> None:
        for version in self._versions(digest)[:1]:
            self.client.set_registered_model_alias(self.about["name"], alias, version.version)

    def _versions(self, digest: str) -> list[Any]:
        found = self.client.search_model_versions(f"name='{self.about['name']}'")
        return [version for version in found if version.tags.get("digest") == digest]

    def _experiment(self) -> str:
        name = self.settings.mlflow_experiment
        found = self.client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        local = None if self.settings.mlflow_uri else (self.settings.mlflow_home / "artifacts").as_uri()
        try:
            return str(self.client.create_experiment(name, artifact_location=local))
        except MlflowException:
            return str(self.client.get_experiment_by_name(name).experiment_id)

    def _run_of(self, stage: str, event: Event | None = None) -> str:
        """Return the MLflow run of a stage ("" is the parent): the one that bears its key, else a new one."""
        if stage not in self.runs:
            key = f"{self.folder.name}/{stage}"
            found = self.client.search_runs([self.experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
            self.runs[stage] = (found[0] if found else self._create(key, stage, event or {})).info.run_id
        return self.runs[stage]

    def _create(self, key: str, stage: str, event: Event) -> Run:
        tags = {KEY: key, **tags_of(event)}
        if stage:
            tags |= {"mlflow.parentRunId": self._run_of(""), "git": self.about.get("git", "")}
        began = milliseconds(event.get("time", 0))
        return self.client.create_run(self.experiment, run_name=stage or self.folder.name, tags=tags, start_time=began)

    def _open_stages(self) -> list[Run]:
        parent = self._run_of("")
        query = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'"
        return list(self.client.search_runs([self.experiment], query))

    def _original(self, fingerprint: str) -> str:
        query = f"tags.fingerprint = '{fingerprint}' and tags.cached = 'false' and attributes.status = 'FINISHED'"
        found = self.client.search_runs([self.experiment], query, max_results=1)
        return found[0].info.run_id if found else ""

    def _last_step(self, event: Event) -> int:
        """Return where the curves of the stage end whose names its last figures bear, as the journal has them."""
        curves = [e for e in read_from(self.folder)[0] if e["event"] == "metrics" and e["stage"] == event["stage"]]
        return max((int(e["step"]) for e in curves if event["metrics"].keys() & e["values"].keys()), default=0)

    def _log_points(self, stage: str, points: list[Metric]) -> None:
        for first in range(0, len(points), METRICS_A_BATCH):
            run = self._run_of(stage)
            self.client.log_batch(run, metrics=points[first : first + METRICS_A_BATCH])

    def _log_params(self, run: str, config: dict[str, Any]) -> None:
        params = [Param(name, value) for name, value in flat(config)]
        for first in range(0, len(params), PARAMS_A_BATCH):
            self.client.log_batch(run, params=params[first : first + PARAMS_A_BATCH])

    def _log_json(self, run: str, values: dict[str, Any], name: str) -> None:
        self.client.log_text(run, json.dumps(values, indent=1, ensure_ascii=False), name)

    def _log_files(self, run: str, *names: str) -> None:
        for name in names:
            if (self.folder / name).exists():
                self.client.log_artifact(run, str(self.folder / name))


def tags_of(event: Event) -> dict[str, str]:
    """Return the tags of a run or a stage."""
    named = {
        name: str(event[name]) for name in ("label", "address", "fingerprint", "git", "flow_run_id") if event.get(name)
    }
    word = {"stage": event["word"], "cached": str(event["event"] == "cached").lower()} if "word" in event else {}
    return {**named, **word, "mlflow.source.name": "slipway"}


def points_of(event: Event) -> list[Metric]:
    """Return one metrics event as MLflow points."""
    moment = milliseconds(event["time"])
    return [Metric(name, float(value), moment, int(event["step"])) for name, value in event["values"].items()]


def datasets_in(inputs: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, dataset) for every dataset among a stage's inputs, collections included."""
    found = []
    for name, value in inputs.items():
        if isinstance(value, dict) and value.get("kind") == "dataset":
            found.append((name, value))
        elif isinstance(value, dict):
            found += [(f"{name}.{below}", item) for below, item in datasets_in(value)]
        elif isinstance(value, list):
            found += [
                (f"{name}.{below}", item) for below, item in datasets_in({str(i): item for i, item in enumerate(value)})
            ]
    return found


def dataset_input(name: str, dataset: dict[str, Any]) -> DatasetInput:
    """Return a dataset as MLflow shows it: name, digest (as much as MLflow holds), where it lies, rows per split."""
    context = "evaluation" if "held_out" in name else "training"
    shown = Dataset(
        name=str(dataset["role"]),
        digest=dataset["digest"][:DIGEST_LENGTH],
        source_type="slipway",
        source=json.dumps({"path": str(dataset["path"]), "digest": dataset["digest"]}),
        profile=json.dumps(dataset["rows"]),
    )
    return DatasetInput(shown, tags=[InputTag("mlflow.data.context", context), InputTag("slipway.input", name)])


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a nested config as (dotted name, text) pairs, as long as MLflow lets a parameter be."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        pairs += flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", str(value))]
    return [(name, text[:PARAM_LENGTH]) for name, text in pairs]


def milliseconds(seconds: float) -> int:
    """Return seconds since the epoch in MLflow's unit."""
    return int(seconds * 1000)
