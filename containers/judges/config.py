"""What a person chooses about a judge: the model itself, or one behind an OpenAI-compatible endpoint. Pydantic alone.

A judge that is asked live can answer otherwise tomorrow, so its stage is never reused: the task fills in `nonce`, and
no two runs have one fingerprint. What was asked is kept in outputs/recorded/; given back as `recorded` with
`live: false`, the same stage needs no network and is cached like any other.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from containers.contract import Config, aside

SECRETS = ("JUDGE_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold an endpoint's key; a stage with a judge declares them."""


class SelfJudgeConfig(Config):
    """The model judges itself, greedily."""

    kind: Literal["self"] = "self"
    """self | endpoint."""


class EndpointJudgeConfig(Config):
    """A model behind an OpenAI-compatible endpoint judges, at temperature 0."""

    kind: Literal["endpoint"] = "endpoint"
    """self | endpoint."""
    url: str = aside(..., pattern=r"^https?://")
    """Base address, up to and with its version: `http://127.0.0.1:8000/v1`."""
    model: str
    """Name of the model there."""
    key_env: Literal["JUDGE_API_KEY", "OPENAI_API_KEY"] | None = aside(None)
    """Environment variable that holds the key; absent: no key is sent."""
    recorded: str | None = aside(None)
    """File, folder or glob of answers recorded earlier (`recorded/answers.jsonl`), which are not asked for again."""
    live: bool = True
    """Ask for what is not recorded; such a stage is never reused. Off: everything must be recorded, nobody is asked."""
    seed: int = 0
    """Sent with every question, for endpoints that heed it."""
    concurrency: int = aside(8, ge=1)
    """Questions under way at once."""
    timeout_seconds: float = aside(120.0, gt=0)
    """Longest wait for one answer."""
    max_attempts: int = aside(6, ge=1)
    """Times that a question is put, where the endpoint is busy (429), broken (5xx) or not reached."""
    nonce: str = ""
    """Filled in by the task where `live` is on, so that no earlier result is reused."""

    @model_validator(mode="after")
    def can_answer(self) -> Self:
        """Refuse a judge that has nothing to answer from."""
        if not self.live and self.recorded is None:
            raise ValueError("live: false answers from `recorded` alone: name the recorded answers, or ask live")
        return self


JudgeConfig = Annotated[SelfJudgeConfig | EndpointJudgeConfig, Field(discriminator="kind")]
"""The choice of a judge (`judge: {kind: endpoint, url: ..., model: ...}`)."""
