"""Servers that go away in the middle of a run, for less than a minute: the run completes and nothing of it is lost."""

from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest

from containers.sockets import free_port
from infra.journal import is_driven
from tests.flows.stack import ON_REAL_SERVERS, Stack, tag

RECIPE = str(Path(__file__).with_name("small.yaml"))
QUICK = ["align=[]", "evaluate.prompts=[]", "package.name=small", "serve.authentication=none"]
OUTAGE_SECONDS = 20
"""Beyond it the server takes some seconds to start: pretrain ends, and further stages begin, while it is away."""

pytestmark = [*ON_REAL_SERVERS, pytest.mark.timeout(600)]


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


def away(stack: Stack, server: str) -> None:
    """Take a server away as a crash does, and bring it back."""
    if server == "postgres":
        stack.stop_postgres()
        sleep(OUTAGE_SECONDS)
        stack.start_postgres()
        return
    stack.kill(server)
    sleep(OUTAGE_SECONDS)
    {"prefect": stack.start_prefect, "mlflow": stack.start_mlflow}[server]()
    stack.wait(server, {"prefect": f"{stack.api}/ready", "mlflow": f"{stack.mlflow}/health"}[server])


@pytest.mark.parametrize(("server", "seed"), [("mlflow", 1), ("postgres", 2), ("prefect", 3)])
def test_a_run_outlives_a_restart(stack: Stack, quick: list[str], server: str, seed: int) -> None:
    asked = stack.trigger("train-llm", recipe_name=RECIPE, overrides=[*quick, f"pretrain.seed={seed}"])["id"]
    stack.until(lambda: stack.stage_of(asked) == "pretrain", 120, "pretrain runs")
    away(stack, server)
    ended = stack.ended(asked)
    assert ended["state"]["name"] == "Completed", ended["state"]
    record = stack.record(asked)
    assert record and {stage.status for stage in record.stages} <= {"done", "cached"}
    caught_up(stack, record.run)
    nothing_is_left(stack)


def caught_up(stack: Stack, run: str) -> None:
    """Wait until MLflow has the whole run: every page closed, the curve of pretrain complete."""
    mine = lambda: [r for r in stack.mlflow_runs() if tag(r, "slipway.key").startswith(f"{run}/")]  # noqa: E731
    stack.until(lambda: {r["run_name"]: r["status"] for r in mine()}.get(run) == "FINISHED", 150, "MLflow catches up")
    assert {r["status"] for r in mine()} == {"FINISHED"}
    (pretrain,) = [r for r in mine() if r["run_name"] == "pretrain"]
    assert pretrain["metrics"], "the curve of pretrain is lost"


def nothing_is_left(stack: Stack) -> None:
    """No run is under way in Prefect, in MLflow or on record, and nobody drives one."""
    assert not stack.ask("/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    stack.until(lambda: "RUNNING" not in stack.in_mlflow(), 90, "MLflow knows that all ended")
    assert not [folder for folder in (stack.home / "runs").glob("*-2*") if is_driven(folder)]
