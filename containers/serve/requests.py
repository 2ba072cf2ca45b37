"""What clients may ask: the request bodies of OpenAI's API, as far as this service goes."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Finite = {"allow_inf_nan": False}
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
UNSUPPORTED = ("tools", "functions", "logprobs", "top_logprobs", "audio", "suffix", "echo", "best_of", "logit_bias")


class Body(BaseModel):
    """A request body; keys that cannot change the answer (user, metadata, store) are ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)


class TextPart(Body):
    """One part of a message's content; text is the only kind that a language model takes."""

    type: Literal["text"]
    text: str


class Turn(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def as_message(self) -> dict[str, str]:
        """Return the message as the chat template takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(Body):
    """What a stream carries besides text."""

    include_usage: bool = False


class Sampling(Body):
    """What both endpoints share: which model, how the next token is drawn, when to stop."""

    model: str
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: int = Field(1, ge=1, le=16)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, **Finite)
    top_p: float | None = Field(None, gt=0, le=1, **Finite)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, **Finite)
    presence_penalty: float | None = Field(None, ge=-2, le=2, **Finite)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None

    @model_validator(mode="after")
    def refuse_unsupported(self) -> Self:
        """Say no to what would change the answer and is not there, instead of ignoring it."""
        extra: dict[str, Any] = self.model_extra or {}
        for name in UNSUPPORTED:
            if extra.get(name):
                raise ValueError(f"{name!r} is not supported by this server")
        kind = (extra.get("response_format") or {"type": "text"}).get("type")
        if kind != "text":
            raise ValueError(f"response_format {kind!r} is not supported by this server")
        return self

    def drawn(self, number: int, temperature: float) -> dict[str, Any]:
        """Return llama.cpp's sampling settings for choice `number`, each choice with a seed of its own."""
        chosen = self.model_dump(include={"top_p", "frequency_penalty", "presence_penalty"}, exclude_none=True)
        chosen["temperature"] = temperature if self.temperature is None else self.temperature
        if self.seed is not None:
            chosen["seed"] = (self.seed + number) % 2**32
        if self.stop:
            chosen["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        return chosen


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Turn] = Field(min_length=1, max_length=1024)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def wanted(self) -> int | None:
        """The longest answer that the client wants, by the new name or the old."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(Sampling):
    """POST /v1/completions: a text (or several), or token ids as they are."""

    prompt: str | list[int] | list[str] | list[list[int]] = Field(min_length=1)

    @property
    def wanted(self) -> int | None:
        """The longest answer that the client wants."""
        return self.max_tokens

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt by itself."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)  # type: ignore[arg-type]
