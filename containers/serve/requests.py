"""What clients may ask: the request bodies of OpenAI's API, as far as this service goes."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Finite = {"allow_inf_nan": False}
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
UNSUPPORTED = ("functions", "function_call", "audio", "suffix", "echo", "best_of", "logit_bias", "modalities")
MAX_ANSWERS = 64
"""Of one request: prompts x choices."""
MAX_TOP = 20


class Body(BaseModel):
    """A request body; keys that cannot change the answer (user, metadata, store) are ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)


class TextPart(Body):
    """One part of a message's content; text is the only kind that a language model takes."""

    type: Literal["text"]
    text: str


class Call(Body):
    """What the model wants a function to be called with; `arguments` is JSON, written out."""

    name: str
    arguments: str = ""


class ToolCall(Body):
    """A call in an assistant's message."""

    id: str = ""
    type: Literal["function"] = "function"
    function: Call


class Turn(Body):
    """One message of a conversation; `tool` gives what a function returned."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def says_something(self) -> Self:
        """Refuse a message without content, unless it calls functions."""
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("the message has no content")
        return self

    @property
    def text(self) -> str:
        """The content in one piece."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())


class Function(Body):
    """A function that the model may ask to be called; `parameters` is a JSON schema."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A function, as OpenAI wraps it."""

    type: Literal["function"]
    function: Function


class StreamOptions(Body):
    """What a stream carries besides text."""

    include_usage: bool = False


class JSONSchema(Body):
    """The schema that an answer must fit."""

    name: str = Field("answer", min_length=1, max_length=64)
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(Body):
    """Free text, any JSON object, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JSONSchema | None = None

    @model_validator(mode="after")
    def has_its_schema(self) -> Self:
        """Refuse `json_schema` without one."""
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing")
        return self

    @property
    def schema_wanted(self) -> dict[str, Any] | None:
        """The schema to hold the answer to, None for free text."""
        if self.json_schema and self.type == "json_schema":
            return self.json_schema.schema_
        return {"type": "object"} if self.type == "json_object" else None


class Sampling(Body):
    """What both endpoints share: which model, how the next token is drawn, when to stop."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=16)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, **Finite)
    top_p: float | None = Field(None, gt=0, le=1, **Finite)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, **Finite)
    presence_penalty: float | None = Field(None, ge=-2, le=2, **Finite)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def refuse_unsupported(self) -> Self:
        """Say no to what would change the answer and is not there, instead of ignoring it."""
        extra: dict[str, Any] = self.model_extra or {}
        for name in UNSUPPORTED:
            if extra.get(name) and not (name == "modalities" and extra[name] == ["text"]):
                raise ValueError(f"{name!r} is not supported by this server")
        return self

    @property
    def top(self) -> int | None:
        """How many of the likeliest tokens to tell beside each token, None for no log-probabilities."""
        return None

    def drawn(self, number: int, temperature: float) -> dict[str, Any]:
        """Return llama.cpp's sampling settings for choice `number`, each choice with a seed of its own."""
        chosen = self.model_dump(include={"top_p", "frequency_penalty", "presence_penalty"}, exclude_none=True)
        chosen["temperature"] = temperature if self.temperature is None else self.temperature
        if self.seed is not None:
            chosen["seed"] = (self.seed + number) % 2**32
        if self.stop:
            chosen["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        if self.top is not None:
            chosen["n_probs"] = max(self.top, 1)
        return chosen


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Turn] = Field(min_length=1, max_length=1024)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP)
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto"] | None = None

    @property
    def wanted(self) -> int | None:
        """The longest answer that the client wants, by the new name or the old."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int | None:
        """See Sampling."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Sampling):
    """POST /v1/completions: a text (or several), or token ids as they are."""

    prompt: str | list[int] | list[str] | list[list[int]] = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP)

    @property
    def wanted(self) -> int | None:
        """The longest answer that the client wants."""
        return self.max_tokens

    @property
    def top(self) -> int | None:
        """See Sampling."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt by itself."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)  # type: ignore[arg-type]
