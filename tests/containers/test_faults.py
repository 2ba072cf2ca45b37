"""Runs from a deployment whose stages are in containers, and what kills them: the reason is told, nothing is left."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from containers.sockets import free_port
from infra.settings import Settings
from tests.containers import stand
from tests.flows.stack import DEAD_WITHIN_SECONDS, PASSWORD, POSTGRES, Stack
from tests.rules.house import ROOT

RECIPE = str(ROOT / "tests" / "flows" / "small.yaml")
TOKEN = "canary-hub-5d20b7"
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL server here: apt-get install postgresql"),
]


@pytest.fixture(scope="module")
def stack(engine: Any, images: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The servers as processes, their worker with containers for its stages and a token of the hub."""
    made = Stack(tmp_path_factory.mktemp("stack"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIPWAY_RUNNER", "docker")
        patch.setenv("SLIPWAY_IMAGE_TAG", stand.TAG)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("SLIPWAY_HF_TOKEN", TOKEN)
        try:
            made.up()
            yield made
        finally:
            made.down()


@pytest.fixture(scope="module")
def long_run() -> dict[str, Any]:
    """Return the parameters of a run whose pretraining would take an hour."""
    changes = ["align=[]", "evaluate.prompts=[]", "pretrain.max_tokens=50_000_000", f"serve.port={free_port()}"]
    return {"recipe_name": RECIPE, "overrides": changes}


def container_of(engine: Any, stack: Stack, stage: str) -> Any:
    """Return the container of a stage once it runs."""
    labels = [f"slipway.home={stack.home}", f"slipway.running={stage}"]
    found: list[Any] = []

    def there() -> bool:
        found[:] = engine.containers.list(filters={"label": labels}, ignore_removed=True)
        return bool(found)

    stack.until(there, 240, f"the container of {stage} runs")
    return found[0]


def nothing_is_left(engine: Any, stack: Stack) -> None:
    """No container, no run under way in Prefect or in MLflow."""
    assert not engine.containers.list(all=True, filters={"label": f"slipway.home={stack.home}"}, ignore_removed=True)
    assert not stack.ask("/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    stack.until(lambda: "RUNNING" not in stack.in_mlflow(), 90, "MLflow knows that all ended")


def test_a_container_that_is_killed_fails_its_run_with_the_reason(
    engine: Any, stack: Stack, long_run: dict[str, Any]
) -> None:
    asked = stack.trigger("train-llm", **long_run)["id"]
    container_of(engine, stack, "pretrain").kill()
    ended = stack.ended(asked, 60)
    assert ended["state"]["type"] == "FAILED"
    assert "pretrain was killed from outside" in ended["state"]["message"], ended["state"]
    nothing_is_left(engine, stack)
    assert stack.in_mlflow(asked) == {"FAILED"}


def test_what_a_killed_worker_left_is_reaped_and_its_run_crashes(
    engine: Any, stack: Stack, long_run: dict[str, Any]
) -> None:
    asked = stack.trigger("train-llm", **long_run)["id"]
    container = container_of(engine, stack, "pretrain")
    stack.kill("worker")
    container.reload()
    assert container.status == "running", "the container ended with its worker, so nothing is shown"
    stack.start_worker()
    gone = lambda: container.id not in [c.id for c in engine.containers.list(all=True, ignore_removed=True)]  # noqa: E731
    stack.until(gone, 60, "the container is reaped")
    stack.until(lambda: stack.run(asked)["state"]["type"] == "CRASHED", DEAD_WITHIN_SECONDS, "the run is Crashed")
    nothing_is_left(engine, stack)


def test_too_little_memory_fails_a_run_with_the_limit(
    engine: Any, stack: Stack, long_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.kill("worker")
    monkeypatch.setenv("SLIPWAY_CONTAINER_MEMORY_GIB", "0.125")
    stack.start_worker()
    ended = stack.ended(stack.trigger("train-llm", **long_run)["id"], 120)
    assert ended["state"]["type"] == "FAILED"
    assert "ran out of memory" in ended["state"]["message"], ended["state"]
    assert "limit of 0.12 GiB (SLIPWAY_CONTAINER_MEMORY_GIB raises it)" in ended["state"]["message"]
    nothing_is_left(engine, stack)


def test_no_secret_is_in_a_log_a_parameter_or_an_artifact(stack: Stack) -> None:
    """Neither the servers' password nor the hub's token, wherever a run leaves something that is read."""
    files = [f for place in (stack.folder, stack.data) for f in place.rglob("*") if f.is_file() and not f.is_symlink()]
    given_to = {stack.folder / "auth.ini", stack.data / "password"}
    leaks = [f for f in files if f not in given_to and any(c.encode() in f.read_bytes() for c in (PASSWORD, TOKEN))]
    assert len(files) > 100 and not leaks, leaks
    kinds = ("flow_runs", "task_runs", "deployments", "artifacts", "logs", "work_pools")
    shown = json.dumps([stack.ask(f"/{kind}/filter") for kind in kinds]) + json.dumps(stack.mlflow_runs())
    assert not any(canary in shown for canary in (PASSWORD, TOKEN))
