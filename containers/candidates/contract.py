"""The candidates stage: a model + prompts -> several answers to each prompt, for people to rank."""

from pydantic import Field

from containers.contract import Candidates, Dataset, Frozen, Model, Stage
from containers.speaking import SpeakingConfig

__all__ = ["STAGE", "CandidatesConfig", "CandidatesInputs", "CandidatesOutputs"]


class CandidatesConfig(SpeakingConfig):
    """How many answers, and how they are drawn."""

    count: int = Field(4, ge=2)
    """Answers drawn for each prompt; equal ones stand once, and a prompt left with one is not put to anybody."""
    temperature: float = Field(1.0, gt=0)
    """Divides the logits: below 1 answers are surer and more alike, above 1 they stray."""
    max_prompts: int | None = Field(200, ge=1)
    """Prompts in all, drawn by seed from every split in proportion to its size; absent: every prompt."""


class CandidatesInputs(Frozen):
    """What earlier stages made."""

    model: Model
    prompts: Dataset
    """Instructions, problems or preferences: what stands before the last answer of each row."""


class CandidatesOutputs(Frozen):
    """What the stage makes."""

    candidates: Candidates


STAGE = Stage(
    "candidates",
    CandidatesConfig,
    CandidatesInputs,
    CandidatesOutputs,
    preload=("transformers.models.llama.modeling_llama", "pyarrow.parquet"),
)
