"""The critique stage: model + constitution + prompts -> preference pairs (constitutional AI, arXiv:2212.08073)."""

from containers.contract import Dataset, Files, Frozen, Model, Stage
from containers.critique.config import CritiqueConfig, Principle
from containers.judges.config import SECRETS

__all__ = ["STAGE", "CritiqueConfig", "CritiqueInputs", "CritiqueOutputs", "Principle"]


class CritiqueInputs(Frozen):
    """What earlier stages made, and what a judge said earlier."""

    model: Model
    prompts: Dataset
    """Instructions, problems or preferences: what stands before the last answer of each row."""
    recorded: Files | None = None
    """Recorded answers of an endpoint (`containers.judges.recordings`)."""


class CritiqueOutputs(Frozen):
    """What the stage makes: chosen = revision, rejected = first answer; splits are the prompts'."""

    preferences: Dataset


STAGE = Stage(
    "critique",
    CritiqueConfig,
    CritiqueInputs,
    CritiqueOutputs,
    secrets=SECRETS,
    preload=("transformers.models.llama.modeling_llama", "pyarrow.parquet", "httpx"),
)
"""No network: the task grants it where an endpoint is asked live (`infra.judges`)."""
