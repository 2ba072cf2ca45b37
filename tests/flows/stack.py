"""What docker-compose.yml brings up, as processes: PostgreSQL, Prefect and MLflow behind auth, and the worker."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from containers.sockets import free_port
from infra.embedded import HEARTBEAT_SECONDS, prefect_environment, wait_for
from infra.runs import RunRecord, read_record
from infra.service import stop_service
from infra.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
ON_REAL_SERVERS = [
    pytest.mark.stack,
    pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL server here: apt-get install postgresql"),
]
PASSWORD = "canary-3f9c1e"
"""Of everything; it may appear in no log, parameter or tag."""


class Stack:
    """The four servers over one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.ports = {name: free_port() for name in ("postgres", "prefect", "mlflow", "worker")}
        self.data = Path(tempfile.mkdtemp(prefix="slipway-postgres-"))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.api = f"http://127.0.0.1:{self.ports['prefect']}/api"
        self.mlflow = f"http://127.0.0.1:{self.ports['mlflow']}"
        self.client = httpx.Client(base_url=self.api, auth=("slipway", PASSWORD), timeout=30)
        self.settings = Settings(home=self.home, prefect_api_url=self.api, mlflow_uri=self.mlflow)
        self.home.mkdir()

    def up(self) -> None:
        self.start_postgres(fresh=True)
        self.start_prefect()
        self.start_mlflow()
        self.wait("prefect", f"{self.api}/ready")
        self.wait("mlflow", f"{self.mlflow}/health")
        self.start_worker()

    def down(self) -> None:
        for name in ("worker", "mlflow", "prefect"):
            self.kill(name)
        self.stop_postgres()
        stop_service(Settings(home=self.home))
        shutil.rmtree(self.data, ignore_errors=True)

    def start_postgres(self, fresh: bool = False) -> None:
        if fresh:
            (self.data / "password").write_text(PASSWORD)
            if os.getuid() == 0:
                subprocess.run(["chown", "-R", "postgres", str(self.data)], check=True)
            self.postgres("initdb", "-U", "slipway", "--pwfile", str(self.data / "password"), "-A", "scram-sha-256")
        options = f"-c listen_addresses=127.0.0.1 -p {self.ports['postgres']} -k {self.data} -c fsync=off"
        self.postgres("pg_ctl", "-w", "-l", str(self.data / "log"), "-o", options, "start")
        if fresh:
            for database in ("prefect", "mlflow", "mlflow_auth"):
                where = ["-h", "127.0.0.1", "-p", str(self.ports["postgres"]), "-U", "slipway"]
                self.postgres("createdb", *where, database)

    def stop_postgres(self) -> None:
        self.postgres("pg_ctl", "-m", "immediate", "stop")

    def postgres(self, program: str, *words: str) -> None:
        """Run a program of PostgreSQL, which refuses to be root."""
        user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        environment = {**os.environ, "PGDATA": str(self.data / "cluster"), "PGPASSWORD": PASSWORD}
        with (self.folder / "postgres-commands.log").open("ab") as log:
            command = [*user, str(POSTGRES[-1] / program), *words]
            subprocess.run(command, cwd="/", env=environment, stdout=log, stderr=log, check=True)

    def database(self, name: str, driver: str = "postgresql+psycopg2") -> str:
        return f"{driver}://slipway:{PASSWORD}@127.0.0.1:{self.ports['postgres']}/{name}"

    def start_prefect(self) -> None:
        self.start(
            "prefect", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.ports["prefect"]),
            PREFECT_SERVER_DATABASE_CONNECTION_URL=self.database("prefect", "postgresql+asyncpg"),
            PREFECT_SERVER_API_AUTH_STRING=f"slipway:{PASSWORD}",
            PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="prefect.server.concurrency.lease_storage.filesystem",
        )  # fmt: skip

    def start_mlflow(self) -> None:
        config = self.folder / "auth.ini"
        config.write_text(
            "[mlflow]\ndefault_permission = READ\nadmin_username = slipway\nadmin_password = unused\n"
            f"database_uri = {self.database('mlflow_auth')}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        self.start(
            "mlflow", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1",
            "--host", "127.0.0.1", "--port", str(self.ports["mlflow"]),
            "--backend-store-uri", self.database("mlflow"), "--artifacts-destination", str(self.folder / "artifacts"),
            MLFLOW_AUTH_CONFIG_PATH=str(config), MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
            MLFLOW_FLASK_SERVER_SECRET_KEY=PASSWORD,
        )  # fmt: skip

    def start_worker(self) -> None:
        self.start("worker", "infra.worker", **self.worker_environment())
        self.until(self.workers_online, 60, "the worker comes online")

    def deploy(self) -> None:
        """Register the deployments, as every start of the worker does."""
        environment = {**os.environ, **self.worker_environment(), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "infra.deploy"], cwd=ROOT, env=environment, check=True)

    def worker_environment(self) -> dict[str, str]:
        return {
            "SLIPWAY_HOME": str(self.home), "SLIPWAY_PREFECT_API_URL": self.api, "SLIPWAY_MLFLOW_URI": self.mlflow,
            "PREFECT_API_AUTH_STRING": f"slipway:{PASSWORD}", "MLFLOW_TRACKING_USERNAME": "slipway",
            "MLFLOW_TRACKING_PASSWORD": PASSWORD, "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports["worker"]),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }  # fmt: skip

    def workers_online(self) -> bool:
        found = self.ask("/work_pools/slipway/workers/filter")
        return isinstance(found, list) and any(worker["status"] == "ONLINE" for worker in found)

    def start(self, name: str, module: str, *words: str, **environment: str) -> None:
        """Start `python -m module`; its output goes to <name>.log."""
        common = {**os.environ, **prefect_environment(self.settings), "PREFECT_API_URL": self.api}
        common |= {
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *words], cwd=ROOT, env=common | environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """Kill a server and everything that it started, as a lost machine does."""
        started = self.processes.pop(name, None)
        if started is None or started.poll() is not None:
            return
        process = psutil.Process(started.pid)
        family = [*process.children(recursive=True), process]
        for member in family:
            try:
                member.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=10)

    def wait(self, name: str, url: str) -> None:
        wait_for(url, self.processes[name], self.folder / f"{name}.log", 120)

    def ask(self, path: str, **body: Any) -> Any:
        """POST to Prefect's API; a refusal is returned as its response."""
        answer = self.client.post(path, json=body)
        return answer.json() if answer.is_success else answer

    def deployment(self, name: str) -> Any:
        return self.client.get(f"/deployments/name/{name}/{name}").raise_for_status().json()

    def trigger(self, name: str, **parameters: Any) -> Any:
        """Ask for a run as the UI's form does."""
        return self.ask(f"/deployments/{self.deployment(name)['id']}/create_flow_run", parameters=parameters)

    def run(self, flow_run: str) -> Any:
        return self.client.get(f"/flow_runs/{flow_run}").raise_for_status().json()

    def ended(self, flow_run: str, seconds: float = 240) -> Any:
        """Return a flow run once its state is final."""
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        self.until(lambda: self.run(flow_run)["state"]["type"] in final, seconds, f"{flow_run} ends")
        return self.run(flow_run)

    def mlflow_runs(self) -> list[dict[str, Any]]:
        """Return every run in MLflow, with its status."""
        with httpx.Client(base_url=f"{self.mlflow}/api/2.0/mlflow", auth=("slipway", PASSWORD), timeout=30) as client:
            found = client.get("/experiments/get-by-name", params={"experiment_name": "slipway"}).json()
            identity = found["experiment"]["experiment_id"]
            asked = {"experiment_ids": [identity], "max_results": 1000}
            return [run["info"] | run["data"] for run in client.post("/runs/search", json=asked).json().get("runs", [])]

    def in_mlflow(self, flow_run: str = "") -> set[str]:
        """Return the statuses in MLflow: of everything, or of the page of one flow run."""
        runs = self.mlflow_runs()
        return {run["status"] for run in runs if not flow_run or tag(run, "flow_run_id") == flow_run}

    def record(self, flow_run: str) -> RunRecord | None:
        """Return the record of the run that a flow run drives, None before there is one."""
        records = [read_record(file.parent) for file in self.home.glob("runs/*-2*/run.json")]
        return next((record for record in records if record.flow_run_id == flow_run), None)

    def stage_of(self, flow_run: str) -> str:
        """Return the stage that a flow run is at, empty between stages."""
        record = self.record(flow_run)
        return next((stage.title for stage in record.stages if stage.status == "running"), "") if record else ""

    def until(self, true: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait until something is true; return how long it took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if true():
                return time.monotonic() - began
            time.sleep(0.5)
        logs = {file.name: file.read_text(errors="replace")[-1500:] for file in self.folder.glob("*.log")}
        raise AssertionError(f"not within {seconds:.0f} s: {what}; {logs.get('worker.log')}")


def tag(run: dict[str, Any], name: str) -> str:
    """Return a tag of a run in MLflow, empty where it has none."""
    return next((entry["value"] for entry in run.get("tags", []) if entry["key"] == name), "")


DEAD_WITHIN_SECONDS = 3 * HEARTBEAT_SECONDS + 30
