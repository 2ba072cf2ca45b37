"""Tools: functions that the chat template tells the model of, and the calls that it writes in answer.

Read and written in the form that Qwen2.5, Qwen3 and Hermes models were trained on: `<tool_call>{"name": ...,
"arguments": {...}}</tool_call>`, one after another (https://huggingface.co/docs/transformers/chat_extras).
"""

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, meta

from containers.formats import ChatFormat, Message
from containers.serve.errors import APIError
from containers.serve.requests import ChatRequest, Turn

OPENING, CLOSING = "<tool_call>", "</tool_call>"
CALL = re.compile(rf"{OPENING}\s*(.*?)\s*(?:{CLOSING}|\Z)", re.DOTALL)


def told(request: ChatRequest) -> list[dict[str, Any]]:
    """Return the functions that the model is told of: none where the request says so."""
    if request.tool_choice == "none":
        return []
    return [tool.model_dump(exclude_none=True) for tool in request.tools or ()]


def check_tools(chat: ChatFormat, request: ChatRequest) -> None:
    """Refuse tools that the template has no place for, and control tokens in them; raises APIError 400."""
    calls = [call.model_dump() for turn in request.messages for call in turn.tool_calls or ()]
    if not (request.tools or calls or any(turn.role == "tool" for turn in request.messages)):
        return
    if "tools" not in variables_of(chat.template):
        message = "'tools' is not supported by this model: its chat template has no place for them"
        raise APIError(400, message, param="tools")
    written = json.dumps([told(request), calls], ensure_ascii=False)
    for i in chat.control_ids:
        token = chat.tokenizer.id_to_token(i)
        if token in written:
            raise APIError(400, f"tools and calls must not hold the control token {token}", param="tools")


def variables_of(template: str) -> set[str]:
    """Return the names that a template expects to be given."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True)
    return meta.find_undeclared_variables(environment.parse(template))


def as_message(turn: Turn) -> Message:
    """Return a message as chat templates take it: a call's arguments as an object."""
    message: dict[str, Any] = {"role": "system" if turn.role == "developer" else turn.role, "content": turn.text}
    if turn.tool_calls:
        calls = [{"name": c.function.name, "arguments": parsed(c.function.arguments)} for c in turn.tool_calls]
        message["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    return message


def parsed(arguments: str) -> Any:
    """Return JSON as what it says, anything else as it is."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def calls_in(text: str, known: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return (the text around the calls, the calls in OpenAI's shape).

    What is not JSON, or calls a function that nobody told the model of, is left in the text.
    """
    calls: list[dict[str, Any]] = []

    def taken(match: re.Match[str]) -> str:
        call = parsed(match[1])
        if not isinstance(call, dict) or call.get("name") not in known:
            return match[0]
        arguments = json.dumps(call.get("arguments", {}), ensure_ascii=False)
        function = {"name": call["name"], "arguments": arguments}
        calls.append({"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function})
        return ""

    rest = CALL.sub(taken, text)
    return (rest.strip() if calls else rest), calls


def said_before_calls(text: str) -> int:
    """Return how many characters of a growing answer are surely not part of a call."""
    start = text.find(OPENING)
    if start >= 0:
        return start
    for length in range(min(len(OPENING) - 1, len(text)), 0, -1):
        if text.endswith(OPENING[:length]):
            return len(text) - length
    return len(text)
