"""Where Slipway lives on this machine: read from the environment once, by entry points, and passed down."""

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Addresses, roots and secrets. Every field reads `SLIPWAY_<NAME>`; nothing below entry points reads it."""

    model_config = SettingsConfigDict(env_prefix="SLIPWAY_", frozen=True, use_attribute_docstrings=True)

    home: Path = ROOT / ".slipway"
    """Everything that Slipway writes: store, runs, logs and the databases of Prefect and MLflow."""
    runner: Literal["process"] = "process"
    """Where stages run."""
    prefect_port: int = 4200
    """Port of the Prefect UI that `make up` starts."""
    mlflow_port: int = 5000
    """Port of the MLflow UI that `make up` starts."""
    hf_token: SecretStr | None = None
    """Passed only to stages that declare it."""

    @cached_property
    def store(self) -> Path:
        """Published stage folders, one per fingerprint."""
        return self.home / "store"

    @cached_property
    def runs(self) -> Path:
        """One folder per run: resolved recipe, report, links into the store."""
        return self.home / "runs"

    @cached_property
    def logs(self) -> Path:
        """Logs of the servers that Slipway starts."""
        return self.home / "logs"
