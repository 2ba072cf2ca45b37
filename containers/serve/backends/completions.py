"""OpenAI's text completions as a client reads them: events, pieces, log-probabilities, refusals."""

import json
from collections.abc import Iterator
from typing import Any

from containers.serve.jobs import EngineError, Piece


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the JSON of server-sent events."""
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[6:])


def pieces(chunks: Iterator[dict[str, Any]], index: int) -> Iterator[Piece | EngineError]:
    """Yield what the chunks say; the last piece waits for the usage that follows it."""
    last = None
    for chunk in chunks:
        if "error" in chunk:
            yield EngineError(str(chunk["error"].get("message", chunk["error"])), 500)
            return
        if not chunk["choices"]:
            usage = chunk["usage"]
            if last:
                yield last._replace(prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"])
            return
        choice = chunk["choices"][0]
        piece = Piece(index, choice["text"], choice["finish_reason"], logprobs=tokens_of(choice.get("logprobs")))
        if piece.finish:
            last = piece
        else:
            yield piece


def tokens_of(known: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    """Return text completions' log-probabilities token by token."""
    if not known:
        return None
    tops = known["top_logprobs"] or [{}] * len(known["tokens"])
    return [
        told(token, logprob) | {"top_logprobs": [told(*pair) for pair in (top or {}).items()]}
        for token, logprob, top in zip(known["tokens"], known["token_logprobs"], tops, strict=True)
    ]


def told(token: str, logprob: float) -> dict[str, Any]:
    """Return one token and its log-probability."""
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def reason_of(body: bytes) -> str:
    """Return the message of an error in OpenAI's shape."""
    try:
        said = json.loads(body)
        return str(said.get("error", said).get("message", said))
    except (ValueError, AttributeError):
        return body.decode(errors="replace")[:300]
