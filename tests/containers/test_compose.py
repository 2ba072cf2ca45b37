"""The compose file on a real engine: up, a run triggered as the UI does, each stage in its container, served."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from infra.settings import Settings
from tests.containers.composed import PROJECT, Composed, command
from tests.flows.stack import POSTGRES
from tests.rules.house import ROOT

QUICK = ["align=[]", "evaluate.prompts=[]", "serve.authentication=none"]
SERVERS = ("postgres", "prefect-server", "mlflow", "prefect-worker", "serve")

pytestmark = [
    pytest.mark.skipif(not command(), reason="no docker compose here"),
    pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL to make a stand-in image of: apt-get install postgresql"),
]


@pytest.fixture(scope="module")
def stack(engine: Any, images: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    folder = tmp_path_factory.mktemp("composed")
    (folder / "data").mkdir()
    shutil.copy(ROOT / "tests" / "flows" / "small.yaml", folder / "data" / "small.yaml")
    folder.chmod(0o755)
    made = Composed(engine, folder)
    made.compose("--profile", "serve", "build", "prefect-worker", "mlflow")
    try:
        yield made
    finally:
        made.compose("--profile", "serve", "down", "-v", "--remove-orphans", "-t", "10")


def test_it_comes_up_healthy_within_three_minutes(stack: Composed) -> None:
    began = time.monotonic()
    stack.compose("--profile", "serve", "up", "-d", "--no-build")
    stack.healthy(180, *SERVERS)
    assert time.monotonic() - began < 180
    said = stack.service("ready").logs().decode()
    assert f"localhost:{stack.ports['PREFECT']}" in said and "slipway:PASSWORD" in said


def test_no_server_is_root_and_none_answers_without_its_password(stack: Composed) -> None:
    for name in SERVERS:
        processes = stack.service(name).top()
        users = {
            row[processes["Titles"].index("UID")]
            for row in processes["Processes"]
            if not re.search("docker-init|healthy", row[-1])
        }
        assert "root" not in users, (name, processes)
    for port, path in (("PREFECT", "/api/deployments/filter"), ("MLFLOW", "/api/2.0/mlflow/experiments/search")):
        assert httpx.post(f"http://127.0.0.1:{stack.ports[port]}{path}", json={}).status_code == 401


def test_a_run_from_the_ui_goes_through_containers_to_a_served_model(stack: Composed) -> None:
    with stack.prefect() as prefect:
        deployment = prefect.get("/deployments/name/train-llm/train-llm").raise_for_status().json()
        asked = {"recipe_name": str(stack.folder / "data" / "small.yaml"), "overrides": QUICK}
        run = prefect.post(f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": asked}).json()
        seen: set[str] = set()
        deadline = time.monotonic() + 500
        state: dict[str, Any] = {"type": "SCHEDULED"}
        while state["type"] in ("SCHEDULED", "PENDING", "RUNNING") and time.monotonic() < deadline:
            labelled = stack.docker.containers.list(filters={"label": "slipway.running"}, ignore_removed=True)
            seen |= {container.labels["slipway.stage"] for container in labelled}
            state = prefect.get(f"/flow_runs/{run['id']}").json()["state"]
            time.sleep(0.1)
        assert state["name"] == "Completed", state.get("message")
    assert {"data", "tokenizer", "pretrain", "sft", "evaluate", "quantize", "package"} <= seen, seen
    in_mlflow(stack)
    answers(stack)


def in_mlflow(stack: Composed) -> None:
    """Wait until MLflow has the run whole, its model registered."""
    with stack.mlflow() as mlflow:
        identity = mlflow.get("/experiments/get-by-name", params={"experiment_name": "slipway"}).json()
        asked = {"experiment_ids": [identity["experiment"]["experiment_id"]]}
        deadline = time.monotonic() + 60
        runs: list[Any] = []
        while not runs or any(run["info"]["status"] == "RUNNING" for run in runs):
            assert time.monotonic() < deadline, runs
            runs = mlflow.post("/runs/search", json=asked).json().get("runs", [])
            time.sleep(0.5)
        curves = {run["info"]["run_name"]: run["data"].get("metrics", []) for run in runs}
        assert {run["info"]["status"] for run in runs} == {"FINISHED"} and curves["pretrain"]
        assert mlflow.get("/registered-models/search").json()["registered_models"]


def answers(stack: Composed) -> None:
    """Ask the served model something, from outside."""
    question = {"model": "assistant", "messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 8}
    url = f"http://127.0.0.1:{stack.ports['SERVE']}/v1/chat/completions"
    said = httpx.post(url, json=question, timeout=60).raise_for_status().json()
    assert said["choices"][0]["message"]["role"] == "assistant"
    stack.healthy(30, "serve")


def test_no_password_is_in_a_log_or_an_image(stack: Composed) -> None:
    secrets = [stack.secret(name) for name in ("postgres_password", "prefect_password", "mlflow_password")]
    assert all(len(secret) >= 24 for secret in secrets)
    mine = stack.docker.containers.list(all=True, filters={"label": f"com.docker.compose.project={PROJECT}"})
    for container in mine:
        said = container.logs().decode(errors="replace")
        told = json.dumps([container.attrs["Config"], container.image.history(), container.image.attrs])
        assert not any(secret in said or secret in told for secret in secrets), container.name
