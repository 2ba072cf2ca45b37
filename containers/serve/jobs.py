"""What the API asks of an engine, what it hears, and the small interface that every engine has."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True)
class Job:
    """One answer to generate. `sampling` holds llama.cpp's own names: max_tokens, temperature, top_p, seed, stop."""

    ids: list[int]
    sampling: dict[str, Any] = field(default_factory=dict)
    adapters: tuple[str, ...] = ()
    """Names of the adapters that answer with the weights; none: the weights alone."""
    forced: tuple[int, ...] = ()
    """The answer that must come, token by token, to learn how likely it is; for the proof in `package`, in process."""


class Piece(NamedTuple):
    """Some text of answer `index`; the last piece of an answer says why it ended and what it cost in tokens."""

    index: int
    text: str
    finish: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: list[dict[str, Any]] | None = None
    """Of each token in `text`: token, bytes, logprob, and the likeliest others. None unless the job asks."""


class EngineError(Exception):
    """The engine refused a job (`code` 400), has no room (429), failed (500), is stopping (503) or late (504)."""

    def __init__(self, message: str, code: int, retry_seconds: float | None = None) -> None:
        """Keep the HTTP status that fits, and when to come back."""
        super().__init__(message)
        self.code, self.retry_seconds = code, retry_seconds


Hear = Callable[[Piece | EngineError], bool]
"""Takes the next piece of an answer, and tells whether to stop."""


class Backend(Protocol):
    """Answers from as many threads at once as there are slots."""

    certain: bool
    """Whether it takes every job that the desk lets through; a program of its own may have rules of its own."""

    def answer(self, index: int, job: Job, hear: Hear) -> None:
        """Generate answer `index` of a request, here and now; its last piece says why it ended."""

    def close(self) -> None:
        """Free the model."""
