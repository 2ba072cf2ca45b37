"""The local Prefect and MLflow servers: pages over the databases that runs wrote.

python -m infra.local up|down|status
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from containers.contract import StageError
from containers.out import write_last
from infra.doctor import holder_of, is_free
from infra.embedded import ServerError, prefect_environment, wait_for
from infra.probe import answers
from infra.settings import ROOT, Settings

STOP_SECONDS = 15


@dataclass(frozen=True)
class Server:
    """A server of ours: how it is started, where it answers, which setting moves it."""

    name: str
    port: int
    setting: str
    health: str
    command: tuple[str, ...]
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """Its page."""
        return f"http://127.0.0.1:{self.port}"


def servers(settings: Settings) -> tuple[Server, ...]:
    """Return both servers as the settings want them: on loopback, without telemetry."""
    return prefect_server(settings), mlflow_server(settings)


def prefect_server(settings: Settings) -> Server:
    """Return the Prefect server over the database that embedded runs write."""
    port = settings.prefect_port
    command = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    environment = {
        **prefect_environment(settings),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    return Server("prefect", port, "SLIPWAY_PREFECT_PORT", "/api/ready", command, environment)


def mlflow_server(settings: Settings) -> Server:
    """Return the MLflow server; it answers 403 to Host names that are not listed, so loopback's are."""
    port = settings.mlflow_port
    database = f"sqlite:///{settings.mlflow_home / 'mlflow.db'}"
    command = (
        "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", database, "--default-artifact-root", (settings.mlflow_home / "artifacts").as_uri(),
    )  # fmt: skip
    environment = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"localhost:{port},127.0.0.1:{port}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    return Server("mlflow", port, "SLIPWAY_MLFLOW_PORT", "/health", command, environment)


def start(server: Server, settings: Settings) -> subprocess.Popen[bytes] | None:
    """Start a server unless it is up; raises StageError when its port is someone else's."""
    if process_of(server, settings):
        return None
    if not is_free(server.port):
        raise StageError(
            f"port {server.port} is taken by {holder_of(server.port)}: stop it, or move {server.name} with "
            f"{server.setting}={server.port + 1}"
        )
    for folder in (settings.logs, settings.prefect_home, settings.mlflow_home):
        folder.mkdir(parents=True, exist_ok=True)
    with log_of(server, settings).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *server.command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=settings.home, start_new_session=True,
            env={**os.environ, **server.environment, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    record = {"pid": process.pid, "started": psutil.Process(process.pid).create_time(), "port": server.port}
    write_last(record_of(server, settings), json.dumps(record))
    return process


def stop(server: Server, settings: Settings) -> bool:
    """Stop a server and everything it started, and nothing else; return whether it ran."""
    process = process_of(server, settings)
    record_of(server, settings).unlink(missing_ok=True)
    if process is None:
        return False
    family = [process, *process.children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for member in left:
        member.kill()
    return True


def process_of(server: Server, settings: Settings) -> psutil.Process | None:
    """Return a server's process; one that only bears its number (it began at another time) is not it."""
    record = record_of(server, settings)
    if not record.exists():
        return None
    noted = json.loads(record.read_text(encoding="utf-8"))
    try:
        process = psutil.Process(noted["pid"])
        same = abs(process.create_time() - noted["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same and noted["port"] == server.port else None


def prefect_url(settings: Settings) -> str | None:
    """Return the API of the local Prefect server when it is up."""
    server = prefect_server(settings)
    up = process_of(server, settings) and answers(server.url + server.health)
    return f"{server.url}/api" if up else None


def log_of(server: Server, settings: Settings) -> Path:
    """Return where a server writes what it says."""
    return settings.logs / f"{server.name}-server.log"


def record_of(server: Server, settings: Settings) -> Path:
    """Return the file that says which process a server is."""
    return settings.home / f"{server.name}-server.json"


def up(settings: Settings) -> None:
    """Start both servers at once and wait until they answer."""
    began = time.monotonic()
    started = [(server, start(server, settings)) for server in servers(settings)]
    for server, process in started:
        if process:
            wait_for(server.url + server.health, process, log_of(server, settings))
        print(f"{server.name:8} {server.url}  {f'up in {time.monotonic() - began:.0f} s' if process else 'was up'}")


def down(settings: Settings) -> None:
    """Stop both servers."""
    for server in servers(settings):
        print(f"{server.name:8} {'stopped' if stop(server, settings) else 'was not up'}")


def status(settings: Settings) -> None:
    """Say which servers are up."""
    for server in servers(settings):
        running = process_of(server, settings)
        healthy = running and answers(server.url + server.health)
        state = f"up (pid {running.pid})" if running and healthy else "does not answer" if running else "down"
        print(f"{server.name:8} {server.url}  {state}")


def main(wish: str) -> int:
    """Do `up`, `down` or `status`; return the exit code."""
    wishes = {"up": up, "down": down, "status": status}
    if wish not in wishes:
        print(f"python -m infra.local {'|'.join(wishes)}", file=sys.stderr)
        return 2
    try:
        wishes[wish](Settings())
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
