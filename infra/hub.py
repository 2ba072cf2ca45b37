"""The Hugging Face hub, seen from the host: which commit a name stands for now, and a model's files at a commit."""

from pathlib import Path
from typing import Any, Literal

from containers.contract import StageError
from infra.launch import NoLaunchError, current_launch

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
TEXTS = ("*.json", "*.jinja", "*.txt", "*.model")
"""Configuration and tokenizer; pickled weights and Python files are never downloaded."""


def token() -> str | None:
    """Return the person's hub token, if the current launch has one."""
    try:
        secret = current_launch().settings.hf_token
    except NoLaunchError:
        return None
    return secret.get_secret_value() if secret else None


def newest_commit(name: str, kind: Literal["dataset", "model"]) -> str:
    """Return the commit that a hub name stands for now; raises StageError."""
    from huggingface_hub import HfApi

    found = asked(name, lambda: HfApi(token=token()).repo_info(name, repo_type=kind))
    return str(found.sha)


def downloaded(name: str, commit: str, cache: Path, patterns: tuple[str, ...]) -> Path:
    """Return the folder that holds those files of a model at a commit; raises StageError."""
    from huggingface_hub import snapshot_download

    def fetch() -> str:
        return str(
            snapshot_download(name, revision=commit, cache_dir=cache, token=token(), allow_patterns=list(patterns))
        )

    return Path(asked(name, fetch))


def asked(name: str, question: Any) -> Any:
    """Return the hub's answer; raises StageError with its reason."""
    try:
        return question()
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise StageError(
            f"{name!r} is no folder here, and the hub does not give it ({reason}): "
            "check the spelling, the network, and SLIPWAY_HF_TOKEN for a private one"
        ) from error
