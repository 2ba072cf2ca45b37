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
from tests.containers import stand
from tests.containers.composed import PROJECT, TOKEN, Composed, command
from tests.flows.stack import POSTGRES
from tests.rules.house import ROOT

PLANTED = "canary-env-77b3"
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
    with stand.planted(ROOT / "infra" / "compose" / ".env", f"SLIPWAY_POSTGRES_PASSWORD={PLANTED}\n"):
        made.compose("--profile", "serve", "build", "prefect-worker", "mlflow")
    try:
        yield made
    finally:
        made.compose("--profile", "serve", "--profile", "monitor", "down", "-v", "--remove-orphans", "-t", "10")


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
        assert TOKEN not in json.dumps(runs)
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


@pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus here: apt-get install prometheus")
def test_prometheus_measures_what_is_served(stack: Composed) -> None:
    stack.compose("--profile", "monitor", "up", "-d", "--no-build", "--no-deps", "prometheus")
    stack.healthy(60, "prometheus")
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['PROMETHEUS']}/api/v1", timeout=30) as prometheus:
        deadline = time.monotonic() + 30
        found: list[Any] = []
        while not found:
            assert time.monotonic() < deadline, prometheus.get("/targets").text
            found = prometheus.get("/query", params={"query": "slipway_generation_tokens_total"}).json()["data"][
                "result"
            ]
            time.sleep(0.5)
        assert found[0]["metric"]["instance"] == "serve:3000" and float(found[0]["value"][1]) > 0
        groups = prometheus.get("/rules").json()["data"]["groups"]
        assert {group["name"] for group in groups} == {"serving", "gpus"}


def test_no_secret_is_in_a_log_a_parameter_or_an_image(stack: Composed) -> None:
    secrets = [stack.secret(name) for name in ("postgres_password", "prefect_password", "mlflow_password")]
    assert all(len(secret) >= 24 for secret in secrets)
    secrets.append(TOKEN)
    mine = stack.docker.containers.list(all=True, filters={"label": f"com.docker.compose.project={PROJECT}"})
    for container in mine:
        said = container.logs().decode(errors="replace")
        told = json.dumps([container.attrs["Args"], container.image.history(), container.image.attrs])
        assert not any(secret in said or secret in told for secret in secrets), container.name
        configured = json.dumps(container.attrs["Config"])  # The token is in the worker's environment, as it must be.
        assert not any(secret in configured for secret in secrets[:-1]), container.name
    with stack.prefect() as prefect:
        kinds = ("flow_runs", "task_runs", "deployments", "artifacts", "logs")
        shown = [prefect.post(f"/{kind}/filter", json={}).raise_for_status().text for kind in kinds]
    assert not any(secret in text for secret in secrets for text in shown)
    files = [f for f in (stack.folder / ".slipway-compose").rglob("*") if f.is_file() and not f.is_symlink()]
    leaks = [file for file in files if any(secret.encode() in file.read_bytes() for secret in secrets)]
    assert len(files) > 100 and not leaks, leaks
    for image in ("host", "mlflow"):
        assert not stand.holds(f"slipway/{image}:{stand.TAG}", PLANTED.encode())
