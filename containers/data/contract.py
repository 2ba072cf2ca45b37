"""The data stage: files, folders, hub names and builtin worlds -> one clean Dataset of one role."""

from typing import Literal

from pydantic import Field

from containers.contract import Config, Dataset, Files, Frozen, Role, Stage
from containers.data.source import QualityConfig, SourceConfig

__all__ = ["STAGE", "DataConfig", "DataInputs", "DataOutputs", "QualityConfig", "SourceConfig"]


class DataConfig(Config):
    """One role's sources and how they are cleaned."""

    sources: tuple[SourceConfig, ...] = ()
    """Read in this order."""
    max_rejected_share: float = Field(0.05, ge=0, le=1)
    """More bad rows than this is an error, not a footnote."""
    quality: QualityConfig = QualityConfig()
    """Which documents of a corpus are kept."""
    calculator_marks: Literal["remove", "keep"] = "remove"
    """GSM8K's `<<48/2=24>>`: removed from worked answers, or kept for a model that is to use a calculator."""
    wikitext: Literal["clean", "keep"] = "clean"
    """WikiText's ` @-@ `, spaced punctuation and headings written as plain prose, or kept; `<unk>` stays in both."""
    pii: Literal["flag", "scrub", "off"] = "flag"
    """Emails, phone, card and social security numbers, IP addresses: counted, replaced by their kind, or ignored."""
    near_duplicate_similarity: float = Field(0.85, gt=0, le=1)
    """Estimated Jaccard similarity of 5-word shingles from which the later row is dropped; 1 keeps them all."""
    decontaminate_words: int = Field(13, ge=0)
    """Drop a training row that shares a run of this many words with a held-out row; 0 turns it off."""
    validation_share: float = Field(0.02, ge=0, lt=0.5)
    """Share of rows held out for validation, chosen by hash of the document or of the conversation's first question."""
    test_share: float = Field(0.02, ge=0, lt=0.5)
    """Share of rows held out for the test, chosen by the same hash."""
    seed: int = 0
    """Of the builtin worlds and of the split's hash."""


class DataInputs(Frozen):
    """A person's files per source (none for hub and builtin sources), and what training must not contain."""

    role: Role
    files: dict[str, Files] = Field(default_factory=dict)
    """Keyed by the index of the source; each a folder that holds the files under their own names."""
    held_out: tuple[Dataset, ...] = ()
    """Earlier datasets, whose test rows are kept out of this one's training and validation rows."""


class DataOutputs(Frozen):
    """What the stage makes."""

    dataset: Dataset


STAGE = Stage(
    "data",
    DataConfig,
    DataInputs,
    DataOutputs,
    fetches=True,
    secrets=("HF_TOKEN",),
    preload=("pyarrow.parquet", "numpy", "rensa"),
)
