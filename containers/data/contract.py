"""The data stage: files, folders, hub names and builtin worlds -> one clean Dataset of one role."""

from typing import Literal

from pydantic import Field

from containers.contract import Config, Dataset, Files, Frozen, Role, Stage, aside


class SourceConfig(Config):
    """Where rows come from: exactly one of `path`, `hub` and `builtin`."""

    path: str | None = aside(None)
    """File, folder or glob, relative to the recipe; `${NAME}` reads an environment variable at the door."""
    hub: str | None = None
    """Dataset name on the hub, streamed; pin it with `revision`."""
    revision: str | None = None
    """Commit of the hub dataset."""
    builtin: str | None = None
    """A world of our own making: stories, desk, arithmetic, shop, facts, harm."""
    format: str | None = None
    """Force a format instead of recognising it."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name -> theirs."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Their speaker name -> user, assistant or system (for example `agent: assistant`)."""
    conversation: str | None = None
    """Column that groups one-message rows into conversations."""
    weight: float = Field(1.0, gt=0)
    """How often each row is seen against the other sources; 2 doubles it, 0.5 keeps every second row."""
    max_rows: int | None = Field(None, gt=0)
    """Read no more rows than this."""


class DataConfig(Config):
    """One role's sources and how they are cleaned."""

    sources: tuple[SourceConfig, ...] = ()
    """Read in this order."""
    max_rejected_share: float = Field(0.05, ge=0, le=1)
    """More bad rows than this is an error, not a footnote."""
    pii: Literal["flag", "scrub", "off"] = "flag"
    """Personal data: counted (flag), replaced by its kind (scrub), or not looked for (off)."""
    near_duplicate_similarity: float = Field(0.85, gt=0, le=1)
    """Estimated Jaccard similarity of word shingles above which the later row is dropped; 1 keeps them all."""
    decontaminate_words: int = Field(13, ge=0)
    """Drop a training row that shares a run of this many words with a held-out row; 0 turns it off."""
    validation_share: float = Field(0.02, ge=0, lt=1)
    """Share of rows held out for validation, chosen by hash."""
    test_share: float = Field(0.02, ge=0, lt=1)
    """Share of rows held out for the test, chosen by hash."""
    seed: int = 0
    """Of the builtin worlds and of the split's hash."""


class DataInputs(Frozen):
    """A person's files per source (None for hub and builtin sources), and what training must not contain."""

    role: Role
    files: dict[str, Files] = Field(default_factory=dict)
    """Keyed by the index of the source."""
    held_out: tuple[Dataset, ...] = ()
    """Earlier datasets, whose test rows are kept out of this one."""


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
    preload=("pyarrow.parquet",),
)
