"""The environment of a stage process: what is declared, and nothing else that a stage could reach the world with."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from containers.contract import Stage
from infra.settings import ROOT, Settings

MACHINE = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "SDKROOT",
    "CC", "CXX", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
)  # fmt: skip
"""Taken over as they are: where programs, compilers and GPUs of this machine are."""
NETWORK = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "HF_ENDPOINT",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
"""Taken over for stages that fetch."""
QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""No telemetry; sets iterate in one order; asking whether there is a GPU does not initialise it."""


def server_environment(settings: Settings, outer: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment in which the fork server imports: a stage's, less what belongs to one stage."""
    return {
        **{name: outer[name] for name in MACHINE if name in outer},
        **QUIET,
        **caches(settings.home.absolute() / "cache"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
    }


def caches(folder: Path) -> dict[str, str]:
    """Return where libraries keep what they download and compile, all below `folder`."""
    return {
        "HF_HOME": str(folder / "huggingface"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "XDG_CACHE_HOME": str(folder),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
    }


def environment_of(stage: Stage[Any, Any, Any], folder: Path, settings: Settings) -> dict[str, str]:
    """Return all that a stage process finds in its environment.

    Only a stage that fetches knows proxies and is online; only the secrets that it declares are passed on.
    """
    environment = {**server_environment(settings), "SLIPWAY_STAGE_FOLDER": str(folder)}
    environment["TMPDIR"] = str(folder / "work" / "tmp")
    if stage.fetches:
        del environment["HF_HUB_OFFLINE"]
        environment |= {name: os.environ[name] for name in NETWORK if name in os.environ}
    return environment | secrets_of(stage, settings)


def secrets_of(stage: Stage[Any, Any, Any], settings: Settings) -> dict[str, str]:
    """Return the declared secrets that are known: from the settings, or from the variable of the same name."""
    known = {name: getattr(settings, name.lower(), None) for name in stage.secrets}
    values = {name: secret.get_secret_value() if secret else os.environ.get(name, "") for name, secret in known.items()}
    return {name: value for name, value in values.items() if value}
