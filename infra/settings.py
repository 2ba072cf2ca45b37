"""Where Slipway lives on this machine: read from the environment once, by entry points, and passed down."""

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Addresses, roots and secrets. Every field reads `SLIPWAY_<NAME>`; nothing below entry points reads it."""

    model_config = SettingsConfigDict(
        env_prefix="SLIPWAY_", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    home: Path = ROOT / ".slipway"
    """Everything that Slipway writes: store, runs, logs and the databases of Prefect and MLflow."""
    runner: Literal["process", "docker"] = "process"
    """Where stages run: as processes of this machine, or each in a container of its own image (`make images`)."""
    image_tag: str = "local"
    """Tag of the stage images: slipway/<stage>:<tag>."""
    container_memory_gib: float | None = Field(None, gt=0)
    """Memory that a stage's container may use (no swap); absent: nine tenths of the machine's."""
    container_pids: int = Field(4096, gt=0)
    """Processes and threads that a stage's container may hold at once."""
    container_shm_gib: float = Field(1.0, gt=0)
    """Shared memory (/dev/shm) of a stage's container; it counts as memory."""
    docker_network: str = "bridge"
    """Docker network of the stages that fetch; every other stage has none."""
    docker_timeout_seconds: int = Field(60, gt=0)
    """How long the Docker engine may take to answer a request."""
    stages_at_once: int | None = Field(None, gt=0)
    """Independent stages that may run side by side; when absent one for every four cores, and one alone where there
    is a GPU."""
    gpu_locks: Path = Path(tempfile.gettempdir()) / "slipway-gpus"
    """One lock per GPU, so that each has one job at a time; every home and user of this machine shares the folder."""
    prefect_port: int = 4200
    """Port of the Prefect UI that `make up` starts."""
    prefect_api_url: str | None = None
    """API of a Prefect server elsewhere; absent: the local server when it is up, else an embedded one."""
    serve_url: str | None = None
    """Where another container serves this home's model (infra.serving_host); absent: a process of this machine does."""
    signing_key: Path | None = None
    """Private key (PEM; P-256, P-384 or P-521) that bundles are signed with; absent: one that is made in `home`."""
    trusted_key: Path | None = None
    """Public key (PEM) whose signature a bundle needs to be served; absent: that of the key which signs here."""
    mlflow_port: int = 5000
    """Port of the MLflow UI that `make up` starts."""
    mlflow_uri: str | None = None
    """Address of an MLflow server elsewhere (http://...); absent: a SQLite database under `home`."""
    mlflow_experiment: str = "slipway"
    """Name of the MLflow experiment that runs are written to."""
    hf_token: SecretStr | None = None
    """Passed only to stages that declare it."""

    @cached_property
    def store(self) -> Path:
        """Published stage folders, one per fingerprint."""
        return self.home / "store"

    @cached_property
    def runs(self) -> Path:
        """One folder per run: resolved recipe, journal, report, links into the store."""
        return self.home / "runs"

    @cached_property
    def logs(self) -> Path:
        """Logs of the servers that Slipway starts."""
        return self.home / "logs"

    @cached_property
    def prefect_home(self) -> Path:
        """Prefect's database and results."""
        return self.home / "prefect"

    @cached_property
    def mlflow_home(self) -> Path:
        """MLflow's database and artifacts."""
        return self.home / "mlflow"

    @cached_property
    def tracking_uri(self) -> str:
        """Where MLflow runs are written."""
        return self.mlflow_uri or f"sqlite:///{self.mlflow_home / 'mlflow.db'}"
