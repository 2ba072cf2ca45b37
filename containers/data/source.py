"""Where rows come from and how they are cleaned, as a person writes it in a recipe (pydantic only)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from containers.contract import Config, aside

Kind = Literal["jsonl", "json", "parquet", "csv", "tsv", "text", "lines", "separated", "wikitext", "html", "code"]
"""How a file is cut into records."""
Shape = Literal[
    "plain",
    "messages",
    "sharegpt",
    "turns",
    "alpaca",
    "prompt_completion",
    "unpaired",
    "question_answer",
    "gsm8k",
    "svamp",
    "transcripts",
    "preference",
    "openai_preference",
    "ranking",
    "label_studio",
]
"""What a record's columns mean."""


class SourceConfig(Config):
    """Where rows come from: exactly one of `path`, `hub` and `builtin`."""

    path: str | None = aside(None)
    """File, folder or glob, relative to the recipe; `${NAME}` reads an environment variable at the door. As the only
    source, `store:<address>` is a dataset that an earlier run made, used as it is."""
    hub: str | None = None
    """Dataset name on the hub (or a folder that `datasets.load_dataset` reads), streamed; pin it with `revision`."""
    revision: str | None = None
    """Commit of the hub dataset."""
    subset: str | None = None
    """Configuration of the hub dataset, where it has several."""
    hub_split: str = "train"
    """Split of the hub dataset to read; it is split anew like every source."""
    builtin: str | None = None
    """A world of our own making: stories, desk, arithmetic, travel, shop, facts, harm, talk."""
    format: Kind | Shape | None = None
    """Force how a file is cut, or what its columns mean, instead of recognising it."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name -> theirs, for example `{prompt: ask, completion: reply}` or `{text: body}`."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Their speaker name -> user, assistant or system (for example `agent: assistant`)."""
    conversation: str | None = None
    """Column that groups one-message rows (columns `role`, `content`) into conversations."""
    licence: str = aside("")
    """What the rows may be used under, best as an SPDX name (apache-2.0, cc-by-nc-4.0); absent: what the folder's card
    (README.md) says. Carried into the model card, the provenance and the bill of materials."""
    weight: float = Field(1.0, gt=0)
    """How often each training row is seen against the other sources; 2 doubles it, 0.5 keeps every second row."""
    max_rows: int | None = Field(None, gt=0)
    """Read no more rows than this."""

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        """Refuse a source with no origin, or with two."""
        if sum(origin is not None for origin in (self.path, self.hub, self.builtin)) != 1:
            raise ValueError("a source needs exactly one of path, hub and builtin")
        return self


class QualityConfig(Config):
    """Which documents of a corpus are worth reading (Rae et al. 2021, Gopher, appendix A1.1); builtin worlds pass."""

    min_words: int = Field(5, ge=0)
    """Shorter documents teach no context; Gopher uses 50, which would drop every short note."""
    min_mean_word_length: float = Field(2.0, ge=0)
    """Characters; below it a document is mostly symbols or broken text (Gopher: 3)."""
    max_mean_word_length: float = Field(14.0, gt=0)
    """Characters; above it a document is mostly URLs, hashes or encoded bytes (Gopher: 10)."""
    min_letter_share: float = Field(0.5, ge=0, le=1)
    """Letters among all characters but white space; below it a document is tables, symbols or digits."""
    max_repeated_line_share: float = Field(0.3, ge=0, le=1)
    """Characters in lines that stood before, among all; above it a document is menus or boilerplate (Gopher: 0.2)."""
