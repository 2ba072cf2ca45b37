"""What Prefect, the run record and MLflow know of a flow that ran twice and then failed; being interrupted."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from infra.journal import read_from
from infra.runs import RunRecord, read_record
from tests.flows.toy_flow import REFUSED

ROOT = Path(__file__).resolve().parents[2]
DRIVE = [sys.executable, "-m", "tests.flows.drive_toy"]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "SLIPWAY_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The toy flow run three times in one home: fresh, unchanged, and with a task that refuses."""
    folder = tmp_path_factory.mktemp("driven")
    command = [*DRIVE, str(folder / "corpus"), "300", "300", str(REFUSED)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(folder / "home"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = sorted((folder / "home" / "runs").glob("toy-*"))
    return SimpleNamespace(home=folder / "home", runs=runs, shown=done.stderr, **json.loads(done.stdout))


def states(driven: SimpleNamespace, kind: str) -> Counter[tuple[str, str]]:
    return Counter((run["name"], run["state"]["name"]) for run in getattr(driven, kind))


def test_the_flow_answers_the_same_when_its_stage_is_reused(driven: SimpleNamespace) -> None:
    fresh, reused, refused = driven.answers
    assert fresh == reused and len(fresh) == 64
    assert refused.startswith("StageError: the vocabulary at tokenizer has the wrong size")


def test_task_runs_are_named_and_end_as_what_they_are(driven: SimpleNamespace) -> None:
    assert states(driven, "task_runs") == {
        ("tokenizer", "Completed"): 2,
        ("tokenizer", "Cached"): 1,
        ("announce", "Completed"): 2,
        ("refuse", "Failed"): 1,
    }
    assert states(driven, "flow_runs") == {("toy", "Completed"): 2, ("toy", "Failed"): 1, ("orphan", "Crashed"): 1}


def test_a_mistake_is_not_tried_again(driven: SimpleNamespace) -> None:
    refused = next(run for run in driven.task_runs if run["name"] == "refuse")
    assert refused["run_count"] == 1


def test_the_stage_speaks_in_the_logs_of_its_task_run(driven: SimpleNamespace) -> None:
    task = {run["id"] for run in driven.task_runs if run["name"] == "tokenizer"}
    said = [log["message"] for log in driven.logs if log["task_run_id"] in task]
    assert any("bytes per token" in text for text in said)
    assert any(text.startswith("Reused tokenizer-") for text in said)


def test_progress_and_final_figures_are_artifacts(driven: SimpleNamespace) -> None:
    shown = {(artifact["key"], artifact["type"]) for artifact in driven.artifacts if artifact["key"]}
    assert ("figures-tokenizer", "table") in shown
    assert shown <= {("figures-tokenizer", "table"), ("progress-tokenizer", "progress")}


def test_the_board_prints_plain_lines_where_there_is_no_terminal(driven: SimpleNamespace) -> None:
    lines = [" ".join(line.split()[1:3]) for line in driven.shown.splitlines() if line[2:3] == ":"]
    assert lines.count("tokenizer started") == 2 and lines.count("tokenizer cached") == 1
    assert "refuse failed" in lines
    assert "\x1b" not in driven.shown


def test_each_run_is_on_record(driven: SimpleNamespace) -> None:
    records = [read_record(folder) for folder in driven.runs]
    assert [record.status for record in records] == ["done", "done", "failed"]
    assert [[entry.status for entry in record.stages] for record in records] == [
        ["done", "done"], ["cached", "done"], ["done", "failed"],
    ]  # fmt: skip
    assert records[0].endpoint and records[0].endpoint.bundle == driven.answers[0]
    assert records[0].arguments["vocab_size"] == 300
    assert records[2].error.startswith("the vocabulary")
    assert (driven.home / "runs" / "latest").resolve() == driven.runs[-1].resolve()
    assert {record.flow_run_id for record in records} < {run["id"] for run in driven.flow_runs}


def test_a_run_whose_driver_died_is_marked_killed_at_the_next_start(driven: SimpleNamespace) -> None:
    record = RunRecord.model_validate_json((driven.home / "runs" / "orphan" / "run.json").read_text())
    assert (record.status, record.stages[0].status) == ("killed", "stopped")


def test_mlflow_catches_up_with_every_run_after_the_driver_is_gone(driven: SimpleNamespace) -> None:
    rows = entered(driven.home, parents=3)
    assert Counter((name.partition("-2")[0], status) for name, status, *_ in rows) == {
        ("toy", "FINISHED"): 2, ("toy", "FAILED"): 1, ("tokenizer", "FINISHED"): 3,
        ("announce", "FINISHED"): 2, ("refuse", "FAILED"): 1,
    }  # fmt: skip


def entered(home: Path, parents: int, seconds: float = 90) -> list[tuple[Any, ...]]:
    """Return MLflow's runs once the journals of so many runs are entered to their ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        states = [json.loads(file.read_text()) for file in home.glob("runs/*-2*/mlflow.json")]
        if sum(state["ended"] for state in states) == parents:
            with sqlite3.connect(home / "mlflow" / "mlflow.db") as database:
                return database.execute("select name, status, run_uuid from runs").fetchall()
        time.sleep(0.2)
    raise AssertionError(f"MLflow did not catch up: {(home / 'logs' / 'mlflow-relay.log').read_text()[-2000:]}")


def test_ctrl_c_stops_the_stage_at_once_and_all_that_was_started(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [*DRIVE, str(tmp_path / "corpus"), "8000:120000"]
    driver = subprocess.Popen(command, cwd=ROOT, env=environment(home), stderr=subprocess.PIPE, text=True)
    try:
        family = wait_for_stage(home, driver)
        driver.send_signal(signal.SIGINT)
        _, errors = driver.communicate(timeout=120)
    finally:
        driver.kill()
    assert driver.returncode != 0
    _, alive = psutil.wait_procs([process for process in family if "infra.relay" not in command_of(process)], timeout=5)
    assert not alive, [command_of(process) for process in alive]
    record = read_record(home / "runs" / "latest")
    assert record.status == "stopped", errors[-2000:]
    assert [entry.status for entry in record.stages] == ["stopped"]
    assert ("tokenizer", "KILLED") in {(name, status) for name, status, _ in entered(home, parents=1)}


def wait_for_stage(home: Path, driver: "subprocess.Popen[str]", seconds: float = 240) -> list[psutil.Process]:
    """Return every process of the driver's family once its stage has begun to work."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and driver.poll() is None:
        events, _ = read_from(home / "runs" / "latest")
        if any(event["event"] in ("log", "progress") for event in events):
            return psutil.Process(driver.pid).children(recursive=True)
        time.sleep(0.05)
    raise AssertionError(f"the stage did not begin: {driver.poll()}")


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
