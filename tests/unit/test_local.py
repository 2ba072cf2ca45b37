"""The local servers: started once, stopped alone, refused where the port is taken; a foreign pid is never touched."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from containers.contract import StageError
from containers.sockets import free_port
from infra.embedded import ServerError, wait_for
from infra.local import Server, log_of, mlflow_server, prefect_server, process_of, record_of, start, stop
from infra.probe import answers
from infra.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, prefect_port=free_port(), mlflow_port=free_port())


@pytest.fixture
def plain(settings: Settings) -> Iterator[Server]:
    """A server that starts in a blink, handled as the real ones are."""
    port = free_port()
    server = Server("plain", port, "SLIPWAY_PLAIN_PORT", "/", ("-m", "http.server", str(port)), {})
    yield server
    stop(server, settings)


def test_a_server_is_started_once_and_stopped_with_all_it_started(settings: Settings, plain: Server) -> None:
    process = start(plain, settings)
    assert process
    wait_for(plain.url, process, log_of(plain, settings))
    assert start(plain, settings) is None
    running = process_of(plain, settings)
    assert running and running.pid == process.pid
    assert stop(plain, settings)
    assert process.wait(timeout=5) is not None
    assert not stop(plain, settings)
    assert not answers(plain.url)


def test_a_taken_port_is_refused_with_its_holder_and_the_setting(settings: Settings, plain: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", plain.port))
        taken.listen()
        with pytest.raises(StageError, match=rf"port {plain.port} is taken by .*pid {os.getpid()}.*SLIPWAY_PLAIN_PORT"):
            start(plain, settings)


def test_a_process_that_only_bears_the_number_is_left_alone(settings: Settings, plain: Server) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        began = psutil.Process(other.pid).create_time()
        noted = {"pid": other.pid, "started": began - 100, "port": plain.port}
        record_of(plain, settings).write_text(json.dumps(noted))
        assert process_of(plain, settings) is None
        assert not stop(plain, settings)
        assert other.poll() is None
        other.communicate(b"\n")


def test_a_server_that_dies_is_told_with_the_end_of_its_log(settings: Settings) -> None:
    broken = Server("broken", free_port(), "X", "/", ("-c", "raise SystemExit('no such database')"), {})
    process = start(broken, settings)
    assert process
    with pytest.raises(ServerError, match="no such database"):
        wait_for(broken.url, process, log_of(broken, settings))


def test_prefect_and_mlflow_stay_on_loopback_without_telemetry(settings: Settings) -> None:
    prefect, mlflow = prefect_server(settings), mlflow_server(settings)
    for server in (prefect, mlflow):
        assert server.command[server.command.index("--host") + 1] == "127.0.0.1"
        assert server.environment["DO_NOT_TRACK"]
    assert prefect.environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    allowed = mlflow.environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert allowed == [f"localhost:{settings.mlflow_port}", f"127.0.0.1:{settings.mlflow_port}"]


@pytest.mark.slow
def test_the_real_servers_come_up_over_the_databases_that_runs_write(settings: Settings) -> None:
    for server in (prefect_server(settings), mlflow_server(settings)):
        process = start(server, settings)
        assert process
        try:
            wait_for(server.url + server.health, process, log_of(server, settings))
            with urllib.request.urlopen(server.url) as page:
                assert b"<html" in page.read().lower()
        finally:
            assert stop(server, settings)
    assert (settings.prefect_home / "prefect.db").exists()
    assert (settings.mlflow_home / "mlflow.db").exists()


def test_the_embedded_api_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from infra.embedded import EmbeddedAPI; from infra.settings import Settings;"
        "print(EmbeddedAPI(Settings()).process.pid, flush=True); time.sleep(2); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "SLIPWAY_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout
    server = psutil.Process(int(parent.stdout.readline()))
    parent.wait(timeout=30)
    parent.stdout.close()
    _, alive = psutil.wait_procs([server], timeout=15)
    assert not alive
