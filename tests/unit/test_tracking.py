"""MLflow, a real one: what a journal becomes, and that an outage, a crash or a kill loses nothing."""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from infra.journal import Journal, is_driven, read_from
from infra.relay import Follower, follow, saved, start_relay, unfinished
from infra.settings import Settings
from infra.tracking import flat

DIGEST = "d" * 64
CORPUS = {"kind": "dataset", "role": "corpus", "path": "inputs/corpus", "digest": DIGEST, "rows": {"train": 7}}
BUNDLE = {"kind": "bundle", "path": "outputs/bundle", "digest": "b" * 64, "version": "1"}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes seconds."""
    file = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    settings = Settings(home=tmp_path / "home", mlflow_uri=None)
    settings.mlflow_home.mkdir(parents=True)
    shutil.copy(migrated, settings.mlflow_home)
    return settings


@pytest.fixture
def journal(settings: Settings) -> Iterator[Journal]:
    journal = Journal(settings.runs / "toy-1")
    journal.write("run", name="toy", git="abc", flow_run_id="f1", config={"sft": {"method": "lora", "r": 8}})
    yield journal
    journal.close()


def begin(journal: Journal, stage: str = "pretrain", kind: str = "started") -> None:
    journal.write(
        kind, stage, word=stage, label="", address=f"{stage}-123", fingerprint=DIGEST,
        config={"depth": 4, "nested": {"rate": 0.1}}, inputs={"corpus": CORPUS, "held_out": [CORPUS]},
    )  # fmt: skip


def learn(journal: Journal, first: int, last: int) -> None:
    for step in range(first, last):
        journal.write("metrics", "pretrain", step=step, values={"loss": 10.0 - step})


def finish(journal: Journal, stage: str = "pretrain", cached: bool = False, **outputs: Any) -> None:
    journal.write(
        "finished", stage, seconds=1.5, metrics={"loss": 0.5}, outputs=outputs, address=f"{stage}-123",
        folder=str(journal.folder / "stage"), cached=cached,
    )  # fmt: skip


def pages(settings: Settings) -> tuple[MlflowClient, dict[str, Any]]:
    client = MlflowClient(settings.tracking_uri, registry_uri=settings.tracking_uri)
    experiment = client.get_experiment_by_name("slipway")
    return client, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_a_run_is_a_parent_and_its_stages_are_nested(settings: Settings, journal: Journal) -> None:
    card = journal.folder / "stage" / "outputs" / "card"
    card.mkdir(parents=True)
    (card / "card.json").write_text('{"samples": ["Once"]}')
    begin(journal)
    learn(journal, 0, 1500)
    finish(journal)
    journal.write("end", status="done")
    assert follow(settings, journal.folder)
    client, runs = pages(settings)
    parent, stage = runs["toy-1"], runs["pretrain"]
    assert stage.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params == {"sft.method": "lora", "sft.r": "8"}
    assert stage.data.params == {"depth": "4", "nested.rate": "0.1"}
    assert {
        "stage": "pretrain",
        "fingerprint": DIGEST,
        "cached": "false",
        "git": "abc",
    }.items() <= stage.data.tags.items()
    assert len(client.get_metric_history(stage.info.run_id, "loss")) == 1501
    assert stage.data.metrics["loss"] == 0.5
    assert {(d.dataset.name, d.dataset.digest) for d in stage.inputs.dataset_inputs} == {("corpus", DIGEST[:36])}
    kept = {file.path for file in client.list_artifacts(stage.info.run_id)}
    assert kept == {"card", "config.json", "inputs.json", "outputs.json"}
    assert [run.info.status for run in (parent, stage)] == ["FINISHED", "FINISHED"]


def test_a_reused_stage_is_a_small_page_that_leads_to_the_original(settings: Settings, journal: Journal) -> None:
    begin(journal)
    finish(journal)
    begin(journal, "sft", kind="cached")
    finish(journal, "sft", cached=True)
    journal.write("end", status="done")
    follow(settings, journal.folder)
    client, runs = pages(settings)
    assert runs["sft"].data.tags["cached"] == "true"
    assert runs["sft"].data.tags["original_run"] == runs["pretrain"].info.run_id
    assert client.list_artifacts(runs["sft"].info.run_id) == []


def test_the_bundle_is_registered_by_reference_and_once(settings: Settings, journal: Journal) -> None:
    for stage in ("package", "package-2"):
        begin(journal, stage)
        finish(journal, stage, bundle=BUNDLE)
    journal.write("started", "serve", word="serve", label="", address="", fingerprint="", config={}, inputs={})
    finish(journal, "serve", value={"kind": "endpoint", "url": "u", "model": "m", "bundle": BUNDLE["digest"]})
    journal.write("end", status="done")
    follow(settings, journal.folder)
    client, _ = pages(settings)
    (version,) = client.search_model_versions("name='toy'")
    assert version.source == "slipway:/store/package-123/outputs/bundle"
    assert version.tags["digest"] == BUNDLE["digest"]
    assert client.get_model_version_by_alias("toy", "served").version == version.version
    assert client.get_model_version_by_alias("toy", "candidate").version == version.version


def test_what_came_while_the_database_was_away_is_entered_when_it_is_back(settings: Settings, journal: Journal) -> None:
    follower = Follower(settings, journal.folder)
    begin(journal)
    learn(journal, 0, 50)
    assert follower.step()
    entered = saved(journal.folder)["position"]
    database = settings.mlflow_home / "mlflow.db"
    database.rename(database.with_suffix(".away"))
    database.mkdir()
    learn(journal, 50, 100)
    with pytest.raises(Exception, match=r"readonly database|unable to open database"):
        Follower(settings, journal.folder).step()
    assert saved(journal.folder)["position"] == entered
    database.rmdir()
    database.with_suffix(".away").rename(database)
    learn(journal, 100, 150)
    finish(journal)
    journal.write("end", status="done")
    assert follow(settings, journal.folder)
    client, runs = pages(settings)
    points = client.get_metric_history(runs["pretrain"].info.run_id, "loss")
    assert sorted(point.step for point in points) == [*range(150), 149]


def test_a_long_backlog_is_entered_bit_by_bit(settings: Settings, journal: Journal) -> None:
    begin(journal)
    learn(journal, 0, 120)
    _, all_of_it = read_from(journal.folder)
    follower = Follower(settings, journal.folder)
    positions = []
    while follower.step():
        positions.append(saved(journal.folder)["position"])
    assert len(positions) == 3 and positions == sorted(positions) and positions[-1] == all_of_it
    client, runs = pages(settings)
    assert len(client.get_metric_history(runs["pretrain"].info.run_id, "loss")) == 120


def test_a_locked_database_delays_no_writer_of_the_journal(settings: Settings, journal: Journal) -> None:
    follower = Follower(settings, journal.folder)
    begin(journal)
    follower.step()
    with sqlite3.connect(settings.mlflow_home / "mlflow.db", isolation_level="EXCLUSIVE") as database:
        database.execute("begin exclusive")
        began = time.perf_counter()
        learn(journal, 0, 200)
        took = time.perf_counter() - began
    events, _ = read_from(journal.folder)
    assert sum(event["event"] == "metrics" for event in events) == 200
    assert took < 5


def test_entering_twice_changes_nothing(settings: Settings, journal: Journal) -> None:
    begin(journal)
    learn(journal, 0, 20)
    finish(journal)
    journal.write("end", status="done")
    follow(settings, journal.folder)
    (journal.folder / "mlflow.json").unlink()
    follow(settings, journal.folder)
    client, runs = pages(settings)
    assert sorted(runs) == ["pretrain", "toy-1"]
    assert len(client.get_metric_history(runs["pretrain"].info.run_id, "loss")) == 21


def test_a_killed_relay_goes_on_where_it_was(settings: Settings, journal: Journal) -> None:
    begin(journal)
    learn(journal, 0, 30)
    first = start_relay(settings, journal.folder)
    wait_until(lambda: saved(journal.folder)["position"] > 0)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    learn(journal, 30, 60)
    finish(journal)
    journal.write("end", status="done")
    assert start_relay(settings, journal.folder).wait(timeout=90) == 0
    client, runs = pages(settings)
    points = client.get_metric_history(runs["pretrain"].info.run_id, "loss")
    assert sorted(point.step for point in points) == [*range(60), 59]
    assert runs["toy-1"].info.status == "FINISHED"


def test_the_run_of_a_dead_driver_is_killed_in_mlflow_too(settings: Settings) -> None:
    dead = Journal(settings.runs / "dead-1")
    dead.write("run", name="dead", git="", flow_run_id="", config={})
    begin(dead)
    (settings.runs / "latest").symlink_to(dead.folder.name)
    assert is_driven(dead.folder)
    assert unfinished(settings.runs) == []
    dead.close()
    assert unfinished(settings.runs) == [dead.folder]
    assert follow(settings, dead.folder, patience=0)
    _, runs = pages(settings)
    assert {name: run.info.status for name, run in runs.items()} == {"dead-1": "KILLED", "pretrain": "KILLED"}
    assert unfinished(settings.runs) == []


def test_a_half_written_line_waits(journal: Journal) -> None:
    with (journal.folder / "journal.jsonl").open("a") as stream:
        stream.write('{"time": 1, "event": "log", "stage": "x", "te')
        stream.flush()
        events, position = read_from(journal.folder)
        assert [event["event"] for event in events] == ["run"]
        stream.write('xt": "whole", "level": "info"}\n')
    events, _ = read_from(journal.folder, position)
    assert [event["text"] for event in events] == ["whole"]


def test_a_config_is_flattened_to_what_mlflow_takes() -> None:
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == [("a.b", "1"), ("a.c", "[1, 2]"), ("d", "None")]
    assert len(flat({"long": "x" * 9000})[0][1]) == 6000


def wait_until(holds: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, json.dumps("it did not come to be")
        time.sleep(0.1)
