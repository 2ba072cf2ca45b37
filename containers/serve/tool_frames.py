"""The reply of a request with tools: calls are told as OpenAI tells them, and kept out of the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from containers.serve.frames import Answer, Reply
from containers.serve.jobs import Piece
from containers.serve.tools import calls_in, said_before_calls


@dataclass
class ToolReply(Reply):
    """A Reply that reads calls of `functions` out of the text; a stream holds back what may become one."""

    functions: Sequence[str] = ()

    def frame(self, piece: Piece) -> bytes:
        """Return what can be told now, which may be nothing."""
        answer = self.answers[piece.index]
        if piece.finish:
            return self._last_frame(piece.index, answer)
        sure = said_before_calls(answer.text)
        text, answer.shown = answer.text[answer.shown : sure], max(sure, answer.shown)
        return self._delta(piece.index, {"content": text}) if text else b""

    def _last_frame(self, index: int, answer: Answer) -> bytes:
        rest, calls = calls_in(answer.text[answer.shown :], self.functions)
        told = self._delta(index, {"content": rest}) if rest else b""
        for number, call in enumerate(calls):
            told += self._delta(index, {"tool_calls": [{"index": number, **call}]})
        return told + self._delta(index, {}, "tool_calls" if calls else answer.finish)

    def _delta(self, index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return self._event([{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        choice = super()._choice(index, answer)
        text, calls = calls_in(answer.text, self.functions)
        if calls:
            choice["message"] |= {"content": text or None, "tool_calls": calls}
            choice["finish_reason"] = "tool_calls"
        return choice
