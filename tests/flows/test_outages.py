"""Servers that go away for less than a minute: who speaks to them waits, and nothing is lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from time import sleep

import pytest

from infra.embedded import prefect_environment
from tests.flows.stack import ON_REAL_SERVERS, PASSWORD, Stack

ASK_TWICE = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    client.read_flows()
    print("asked", flush=True)
    input()
    print(client.create_flow_from_name("after the outage"), flush=True)
"""
"""A client as a run's own: it has reached the server once before the server goes away."""

pytestmark = ON_REAL_SERVERS


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A database; each test starts the server that it asks."""
    made = Stack(tmp_path_factory.mktemp("stack"))
    try:
        made.start_postgres(fresh=True)
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def prefect(stack: Stack) -> Stack:
    stack.start_prefect()
    stack.wait("prefect", f"{stack.api}/ready")
    return stack


@pytest.mark.parametrize("server", ["postgres", "prefect"])
def test_a_client_of_prefect_waits_for_it_and_for_its_database(prefect: Stack, server: str) -> None:
    environment = {**os.environ, **prefect_environment(prefect.settings), "PREFECT_API_URL": prefect.api}
    environment["PREFECT_API_AUTH_STRING"] = f"slipway:{PASSWORD}"
    asking = subprocess.Popen(
        [sys.executable, "-c", ASK_TWICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert asking.stdin and asking.stdout
    assert asking.stdout.readline() == "asked\n"
    prefect.stop_postgres() if server == "postgres" else prefect.kill("prefect")
    asking.stdin.write("\n")
    asking.stdin.flush()
    sleep(5)
    assert asking.poll() is None, "it gave up"
    prefect.start_postgres() if server == "postgres" else prefect.start_prefect()
    said, _ = asking.communicate(timeout=120)
    assert asking.returncode == 0 and len(said.strip()) == 36
