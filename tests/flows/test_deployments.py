"""The deployments on a real stack: PostgreSQL, Prefect server, MLflow and worker, all behind their passwords."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from containers.sockets import free_port
from tests.flows.stack import DEAD_WITHIN_SECONDS, ON_REAL_SERVERS, PASSWORD, Stack

RECIPE = str(Path(__file__).with_name("small.yaml"))
QUICK = ["align=[]", "evaluate.prompts=[]", "package.name=small", "serve.authentication=none"]

pytestmark = ON_REAL_SERVERS


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("stack"))
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def quick() -> list[str]:
    return [*QUICK, f"serve.port={free_port()}"]


def test_every_deployment_is_there_with_its_limit_its_tags_and_its_pool(stack: Stack) -> None:
    found = {d["name"]: d for d in stack.ask("/deployments/filter")}
    assert set(found) == {"train-llm", "adapt-model", "retrain", "release-model"}
    for deployment in found.values():
        assert deployment["work_pool_name"] == "slipway" and "slipway" in deployment["tags"]
        assert deployment["enforce_parameter_schema"] and deployment["description"]
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert ":" not in deployment["entrypoint"]
    (nightly,) = found["retrain"]["schedules"]
    assert nightly["schedule"]["cron"] == "0 3 * * *" and nightly["active"] is False
    assert stack.client.get("/work_pools/slipway").json()["type"] == "process"


def test_a_schedule_that_a_person_switched_on_stays_on_when_the_worker_starts_again(stack: Stack) -> None:
    deployment = stack.deployment("retrain")
    (nightly,) = deployment["schedules"]
    place = f"/deployments/{deployment['id']}/schedules/{nightly['id']}"
    stack.client.patch(place, json={"active": True}).raise_for_status()
    stack.deploy()
    assert [schedule["active"] for schedule in stack.deployment("retrain")["schedules"]] == [True]
    stack.client.patch(place, json={"active": False}).raise_for_status()


def test_nobody_comes_in_without_the_password(stack: Stack) -> None:
    assert httpx.post(f"{stack.api}/deployments/filter", json={}).status_code == 401
    assert httpx.post(f"{stack.mlflow}/api/2.0/mlflow/experiments/search", json={"max_results": 1}).status_code == 401


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"recipe_name": "tinny", "overrides": []}, "tinny"),
        ({"recipe_name": "tiny", "overrides": ["sft.learning_rate 1e-4"]}, "sft.learning_rate 1e-4"),
    ],
)
def test_a_wrong_form_is_refused_before_a_run_is_made(stack: Stack, parameters: dict[str, Any], told: str) -> None:
    refused = stack.trigger("train-llm", **parameters)
    assert isinstance(refused, httpx.Response) and refused.status_code in (409, 422)
    assert told in refused.text


def test_a_schedule_fires_by_itself_and_a_night_without_news_ends_in_seconds(stack: Stack, quick: list[str]) -> None:
    deployment = stack.deployment("retrain")
    asked = {"recipe_name": RECIPE, "overrides": quick}
    every = {"schedule": {"interval": 10}, "active": True, "parameters": asked}
    (made,) = stack.client.post(f"/deployments/{deployment['id']}/schedules", json=[every]).raise_for_status().json()
    mine = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    completed = {**mine, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    try:
        stack.until(lambda: len(stack.ask("/flow_runs/filter", **completed)) >= 2, 400, "two scheduled runs complete")
    finally:
        stack.client.delete(f"/deployments/{deployment['id']}/schedules/{made['id']}").raise_for_status()
    first, second, *_ = sorted(stack.ask("/flow_runs/filter", **completed), key=lambda run: run["start_time"])
    assert first["auto_scheduled"] and second["auto_scheduled"]
    assert (first["state"]["name"], second["state"]["name"]) == ("Replaced", "Unchanged")
    assert "nothing is new" in second["state"]["message"]
    assert second["total_run_time"] < 30
    assert statuses(stack, second["id"]) - {("serve", "done"), ("report", "done")} == {
        (stage, "cached") for stage, _ in statuses(stack, first["id"]) if stage not in ("serve", "report")
    }
    assert first["total_run_time"] > second["total_run_time"]
    drain(stack, deployment["id"])


def test_a_new_model_that_is_worse_is_not_served(stack: Stack, quick: list[str]) -> None:
    before = (stack.home / "serve" / "service.json").read_text()
    worse = [*quick, "pretrain.max_tokens=1500", "sft.learning_rate=1e-7"]
    ended = stack.ended(stack.trigger("retrain", recipe_name=RECIPE, overrides=worse)["id"])
    assert ended["state"]["name"] == "Kept", ended["state"]
    assert "answer_loss" in ended["state"]["message"]
    assert json.loads((stack.home / "serve" / "service.json").read_text()) == json.loads(before)
    cached = {stage for stage, status in statuses(stack, ended["id"]) if status == "cached"}
    assert {"data corpus", "data instructions", "tokenizer"} <= cached


def test_a_model_of_the_store_is_released(stack: Stack, quick: list[str]) -> None:
    (model, *_) = sorted(path.name for path in (stack.home / "store").glob("sft-*"))
    asked = {"model": f"store:{model}", "recipe_name": RECIPE, "overrides": quick}
    ended = stack.ended(stack.trigger("release-model", **asked)["id"])
    assert ended["state"]["name"] == "Completed", ended["state"]
    assert {"merge"} & {stage for stage, _ in statuses(stack, ended["id"])} == set()


def test_a_killed_worker_leaves_no_run_running(stack: Stack, quick: list[str]) -> None:
    slow = [*quick, "pretrain.max_tokens=50_000_000"]
    asked = stack.trigger("train-llm", recipe_name=RECIPE, overrides=slow)["id"]
    stack.until(lambda: stack.stage_of(asked) == "pretrain", 120, "pretrain runs")
    stack.until(lambda: "RUNNING" in stack.in_mlflow(asked), 120, "MLflow knows of it")
    stack.kill("worker")
    assert stack.run(asked)["state"]["type"] == "RUNNING"
    took = stack.until(lambda: stack.run(asked)["state"]["type"] == "CRASHED", DEAD_WITHIN_SECONDS, "it is Crashed")
    assert "No sign of life" in stack.run(asked)["state"]["message"], took
    stack.start_worker()
    stack.until(lambda: "RUNNING" not in stack.in_mlflow(), 150, "MLflow knows that all ended")
    assert "KILLED" in stack.in_mlflow(asked)
    assert not stack.ask("/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    again = stack.ended(stack.trigger("train-llm", recipe_name=RECIPE, overrides=quick)["id"])
    assert again["state"]["name"] == "Completed", "the dead run still holds the deployment's one place"


def test_the_password_is_in_no_log_no_parameter_and_no_tag(stack: Stack) -> None:
    files = [*stack.folder.glob("*.log"), *(stack.home / "logs").glob("*.log"), *stack.home.glob("runs/*/*.json*")]
    leaks = [file.name for file in files if PASSWORD in file.read_text(errors="replace")]
    assert not leaks
    assert PASSWORD not in json.dumps(stack.mlflow_runs())
    shown = [stack.ask(f"/{kind}/filter") for kind in ("flow_runs", "deployments", "artifacts", "logs", "work_pools")]
    assert PASSWORD not in json.dumps(shown)


def statuses(stack: Stack, flow_run: str) -> set[tuple[str, str]]:
    """Return (stage, status) of the run that a flow run drove."""
    return {(stage.title, stage.status) for stage in stack.record(flow_run).stages}


def drain(stack: Stack, deployment: str) -> None:
    """Take away scheduled runs that were already made, and wait for the one that runs."""
    left = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    for run in stack.ask("/flow_runs/filter", **left):
        stack.client.delete(f"/flow_runs/{run['id']}")
    busy = {**left, "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}
    stack.until(lambda: not stack.ask("/flow_runs/filter", **busy), 60, "scheduled runs end")
