"""docker-compose.yml brought up for real, on base images made of this machine's packages."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from docker.errors import ImageNotFound

from containers.sockets import free_port
from tests.containers import stand
from tests.rules.house import ROOT

PROJECT = "slipway-test"
TOKEN = "canary-hub-9c41f0"
"""Given to the worker as the hub's; it may be read nowhere."""


def command() -> list[str]:
    """Return how compose is called here; empty where there is none."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    return ["docker", "compose"] if plugin else ["docker-compose"] if shutil.which("docker-compose") else []


def stand_in(client: Any, name: str, *packages: str) -> str:
    """Make the stand-in for an official image, `name`, of this machine's packages, unless it is there."""
    here, image = Path(__file__).parent, f"slipway-test/{name}"
    try:
        client.images.get(image)
    except ImageNotFound:
        subprocess.run([sys.executable, str(here / "base_image.py"), f"{image}-files", *packages], check=True)
        subprocess.run(["docker", "build", "-q", "-t", image, str(here / name)], check=True)
    return image


def postgresql() -> str:
    """Return the package of this machine's PostgreSQL server."""
    return f"postgresql-{max(folder.name for folder in Path('/usr/lib/postgresql').iterdir())}"


class Composed:
    """One project over one folder."""

    def __init__(self, client: Any, folder: Path) -> None:
        self.docker, self.folder = client, folder
        self.ports = {name: free_port() for name in ("PREFECT", "MLFLOW", "SERVE", "PROMETHEUS")}
        base = stand.base_image(client)
        self.environment = {
            **os.environ, **{f"{name}_PORT": str(port) for name, port in self.ports.items()},
            "PATH": f"{Path(stand.builder()).parent}:{os.environ['PATH']}", "PWD": str(folder),
            "DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1", "COMPOSE_HTTP_TIMEOUT": "300",
            "SLIPWAY_TAG": stand.TAG, "SLIPWAY_STAGE_BASE": base, "SLIPWAY_HOST_BASE": base,
            "SLIPWAY_WHEELS": stand.wheels(client), "SLIPWAY_PIP_ARGS": "--no-index --find-links /wheels",
            "POSTGRES_IMAGE": stand_in(client, "postgres", postgresql()), "SLIPWAY_HF_TOKEN": TOKEN,
        }  # fmt: skip
        if shutil.which("prometheus"):
            self.environment["PROMETHEUS_IMAGE"] = stand_in(client, "prometheus", "prometheus", "wget")

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run compose; its words are shown where it fails."""
        where = ["-p", PROJECT, "-f", str(ROOT / "docker-compose.yml"), "--project-directory", str(ROOT)]
        done = subprocess.run(
            [*command(), *where, *words], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done

    def service(self, name: str) -> Any:
        """Return a service's container."""
        label = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={name}"]
        return self.docker.containers.list(all=True, filters={"label": label})[0]

    def healthy(self, seconds: float, *names: str) -> float:
        """Wait until services are healthy; return how long it took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            states = {name: self.service(name).attrs["State"].get("Health", {}).get("Status") for name in names}
            if set(states.values()) == {"healthy"}:
                return time.monotonic() - began
            time.sleep(0.5)
        logs = "\n".join(f"{n}: {self.service(n).logs(tail=15).decode()}" for n, s in states.items() if s != "healthy")
        raise AssertionError(f"not healthy within {seconds} s: {states}\n{logs}")

    def secret(self, name: str) -> str:
        """Return a secret as a person reads it."""
        return self.compose("exec", "-T", "prefect-worker", "cat", f"/run/slipway/{name}").stdout.strip()

    def prefect(self) -> httpx.Client:
        """Return a client of Prefect's API."""
        address = f"http://127.0.0.1:{self.ports['PREFECT']}/api"
        return httpx.Client(base_url=address, auth=("slipway", self.secret("prefect_password")), timeout=30)

    def mlflow(self) -> httpx.Client:
        """Return a client of MLflow's API."""
        address = f"http://127.0.0.1:{self.ports['MLFLOW']}/api/2.0/mlflow"
        return httpx.Client(base_url=address, auth=("slipway", self.secret("mlflow_password")), timeout=30)
