"""The JSON of a report (`slipway report --json`). Its shape is versioned: a field is added, never changed."""

from typing import Any, Literal

from pydantic import Field

from containers.contract import Frozen


class StageLine(Frozen):
    """One stage run."""

    name: str
    """The stage's word, with its label where one stage runs several times: evaluate-chat."""
    status: Literal["done", "cached", "failed"]
    seconds: float
    """Wall-clock seconds of this run; about 0 for a cached stage."""
    fingerprint: str
    metrics: dict[str, float]
    """The stage's own final figures."""


class ScoreLine(Frozen):
    """One measure of one model with its 95% interval."""

    model: str
    measure: str
    value: float
    low: float
    high: float
    n: int


class ChangeLine(Frozen):
    """What became of one measure since the model that alignment started from."""

    model: str
    against: str
    measure: str
    before: float
    after: float
    gained: int
    """Questions that were wrong and are right now; 0 for a measure that is no share."""
    lost: int
    p: float | None
    """Of McNemar's exact test, two-sided; None for a measure that is no share."""
    verdict: Literal["better", "worse", "same"]
    """Different at p < 0.05, or outside of the 95% interval of the model before; otherwise the same."""


class QuantizationLine(Frozen):
    """One format beside its 16-bit parent."""

    format: str
    bytes: int
    perplexity: float | None
    delta: float | None
    """Relative change of perplexity against the parent: 0.01 is one percent worse."""
    top1_agreement: float | None
    """Share of positions where both pick the same next token."""
    shipped: bool
    kl_divergence: float | None = None
    """Mean KL(parent || format), nats per token, from below."""
    memory_bytes: float | None = None
    """Most that was resident in a process that serves it; of a format for transformers, its weights."""
    tokens_per_second: float | None = None
    """One stream, greedy."""
    accuracy: float | None = None
    """Share of held-out problems solved."""
    accuracy_delta: float | None = None
    accuracy_p: float | None = None
    """Of McNemar's exact test against the parent, two-sided."""
    fallbacks: int | None = None
    """Matrices stored in another type, since their rows fit no block of the format's own."""
    reason: str | None = None
    """Why it ships or not."""


class PromptLine(Frozen):
    """One prompt and what each model of the run answered."""

    prompt: str
    answers: dict[str, str]


class ReportFacts(Frozen):
    """report.json."""

    version: Literal[1] = 1
    run: str
    recipe: str
    flow: str
    started: str
    """UTC, ISO 8601."""
    seconds: float
    stages: tuple[StageLine, ...]
    scores: tuple[ScoreLine, ...]
    changes: tuple[ChangeLine, ...] = ()
    quantization: tuple[QuantizationLine, ...]
    prompts: tuple[PromptLine, ...]
    endpoint: str | None
    environment: dict[str, str]
    git: str | None
    cards: dict[str, Any]
    """card.json of each stage, by the stage's name."""
    pinned: dict[str, str] = Field(default_factory=dict)
    """Place in the recipe -> `store:<address>`: used as it was made, whatever the code was by then."""
