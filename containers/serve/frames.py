"""What clients get: OpenAI's response objects, whole or in pieces."""

import json
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from containers.serve.jobs import Piece


@dataclass
class Answer:
    """One choice as it grows."""

    text: str = ""
    finish: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    shown: int = 0
    """Characters that a stream has sent, where it sends less than it has."""


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
    top: int | None = None
    """How many of the likeliest tokens are told beside each token; None: no log-probabilities."""
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
        if piece.logprobs:
            answer.logprobs += piece.logprobs
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
        choices = [self._choice(i, answer) for i, answer in enumerate(self.answers)]
        return self._about("chat.completion") | {"choices": choices, "usage": self.usage}

    def frame(self, piece: Piece) -> bytes:
        """Return one piece, which has been added, as a server-sent event."""
        known = self._logprobs(piece.logprobs, piece) if piece.logprobs else None
        if self.chat:
            delta = {"content": piece.text} if piece.text else {}
            choice = {"index": piece.index, "delta": delta, "logprobs": known, "finish_reason": piece.finish}
        else:
            choice = {"index": piece.index, "text": piece.text, "logprobs": known, "finish_reason": piece.finish}
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

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        known = None if self.top is None else self._logprobs(answer.logprobs)
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        said = {"message": message} if self.chat else {"text": answer.text}
        return {"index": index, **said, "logprobs": known, "finish_reason": answer.finish}

    def _logprobs(self, tokens: list[dict[str, Any]], piece: Piece | None = None) -> dict[str, Any]:
        """Return log-probabilities as the endpoint's clients expect them, of a streamed piece or a whole answer."""
        top = self.top or 0
        if self.chat:
            return chat_logprobs(tokens, top)
        before = len(self.answers[piece.index].text) - len(piece.text) if piece else 0
        return text_logprobs(tokens, top, before)

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


def chat_logprobs(tokens: list[dict[str, Any]], top: int) -> dict[str, Any]:
    """Return what chat completions tell of each token, with the `top` likeliest in its place."""
    names = ("token", "logprob", "bytes")
    content = [
        {n: token[n] for n in names} | {"top_logprobs": [{n: t[n] for n in names} for t in token["top_logprobs"][:top]]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def text_logprobs(tokens: list[dict[str, Any]], top: int, offset: int) -> dict[str, Any]:
    """Return what text completions tell of each token; the first begins `offset` characters into the answer."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token["token"])
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [{t["token"]: t["logprob"] for t in token["top_logprobs"][:top]} for token in tokens],
        "text_offset": offsets,
    }


def event(value: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return f"data: {compact(value)}\n\n".encode()


compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""JSON without spaces; one encoder for every call, where json.dumps would make one each time."""
