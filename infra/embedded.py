"""The embedded Prefect API: a server on a loopback port of its own that lives exactly as long as its parent.

Prefect would start one by itself, but only when the flow is called, and would leave it behind when its process is
killed. This one is started first thing, so that it comes up (7 s; 19 s the first time, when its database is made)
while recipes are read and libraries imported.

    python -m infra.embedded PORT
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from containers.sockets import free_port
from infra.probe import answers
from infra.settings import ROOT, Settings

STARTUP_SECONDS = 120
HEARTBEAT_SECONDS = 30
"""How often a flow run says that it lives; after three that are missing it counts as dead."""


class ServerError(Exception):
    """A server that does not come up: what, and where its log is."""


def prefect_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that must be set before Prefect is imported: its home, JSON results, no telemetry.

    Six tries, each pause twice the one before, wait out two minutes without a server; without its database it says 500.
    """
    return {
        "PREFECT_HOME": str(settings.prefect_home),
        "PREFECT_PROFILES_PATH": str(settings.prefect_home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{settings.prefect_home / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(settings.prefect_home / "results"),
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_CLIENT_MAX_RETRIES": "6",
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "DO_NOT_TRACK": "1",
    }


class EmbeddedAPI:
    """A Prefect API for one process."""

    def __init__(self, settings: Settings) -> None:
        """Start it; `wait` says when it answers."""
        self.port, self.log = free_port(), settings.logs / "prefect-embedded.log"
        settings.logs.mkdir(parents=True, exist_ok=True)
        settings.prefect_home.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **prefect_environment(settings), "PYTHONPATH": str(ROOT)}
        environment |= {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", "PREFECT_UI_ENABLED": "0"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.embedded", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    @property
    def url(self) -> str:
        """Its address, for PREFECT_API_URL."""
        return f"http://127.0.0.1:{self.port}/api"

    def wait(self) -> None:
        """Return once it answers; raises ServerError when it stops or takes too long."""
        wait_for(f"{self.url}/health", self.process, self.log)

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = STARTUP_SECONDS) -> None:
    """Return once `url` answers 200; raises ServerError with the end of the log when the process stops before."""
    deadline = time.monotonic() + seconds
    while not answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
            state = f"took longer than {seconds:.0f} s" if process.poll() is None else "stopped"
            raise ServerError(f"the server for {url} {state}; its log, {log}, ends with:\n{last}")
        time.sleep(0.1)


def end_with_parent() -> None:
    """Leave as soon as the parent is gone, however it went."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main(port: int) -> None:
    """Serve until the parent is gone."""
    end_with_parent()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(), host="127.0.0.1", port=port, log_level="error", lifespan="on")


if __name__ == "__main__":
    main(int(sys.argv[1]))
