"""What clients get: OpenAI's response objects, whole or in pieces."""

import json
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from containers.serve.engine import Piece


@dataclass
class Answer:
    """The text of one choice as it grows."""

    text: str = ""
    finish: str | None = None


@dataclass
class Reply:
    """All choices of one request: fed with pieces, read as one object or framed as a stream."""

    model: str
    fingerprint: str
    chat: bool
    prompt_tokens: int
    """Tokens of the prompts, each counted once however many choices share it."""
    choices: int = 1
    stream_usage: bool = False
    """Whether a stream ends with its usage (and says null before)."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    completion_tokens: int = 0
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Give it an id and a place for each choice."""
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12)
        self.answers = [Answer() for _ in range(self.choices)]

    def add(self, piece: Piece) -> None:
        """Take the next piece of one of the choices."""
        answer = self.answers[piece.index]
        answer.text += piece.text
        answer.finish = piece.finish or answer.finish
        self.completion_tokens += piece.completion_tokens

    @property
    def endpoint(self) -> str:
        """The route's name in the metrics."""
        return "chat.completions" if self.chat else "completions"

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        read, written = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def whole(self) -> dict[str, Any]:
        """Return the response object of a request that does not stream."""
        choices = [self._choice(i, answer.text, answer.finish) for i, answer in enumerate(self.answers)]
        return self._about("chat.completion") | {"choices": choices, "usage": self.usage}

    def frame(self, piece: Piece) -> bytes:
        """Return one piece as a server-sent event."""
        if self.chat:
            delta = {"content": piece.text} if piece.text else {}
            choice = {"index": piece.index, "delta": delta, "logprobs": None, "finish_reason": piece.finish}
        else:
            choice = self._choice(piece.index, piece.text, piece.finish)
        return self._event([choice])

    def opening(self) -> bytes:
        """Return the events that name the speaker of each choice; text completions have none."""
        if not self.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        turns = [{"index": i, "delta": delta, "logprobs": None, "finish_reason": None} for i in range(self.choices)]
        return b"".join(self._event([turn]) for turn in turns)

    def closing(self) -> bytes:
        """Return the last events: what it cost, if asked, and the end."""
        cost = self._event([], self.usage) if self.stream_usage else b""
        return cost + b"data: [DONE]\n\n"

    def _choice(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": finish}

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        """Return one chunk; only its choices and usage are written anew, the rest is the same in all of a stream."""
        cost = f',"usage":{compact(usage)}' if self.stream_usage else ""
        return f'data: {self._head},"choices":{compact(choices)}{cost}}}\n\n'.encode()

    @cached_property
    def _head(self) -> str:
        return compact(self._about("chat.completion.chunk"))[:-1]

    def _about(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def event(value: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return f"data: {compact(value)}\n\n".encode()


compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""JSON without spaces; one encoder for every call, where json.dumps would make one each time."""
