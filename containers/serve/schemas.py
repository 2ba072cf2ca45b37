"""`response_format`: a JSON schema that the answer is held to, token by token, by llama.cpp's grammar (llguidance)."""

import json
from functools import cache
from typing import Any

import llguidance

from containers.serve.errors import APIError

COMPACT = {"item_separator": ",", "key_separator": ":", "whitespace_flexible": False}
"""Without it a small model may write spaces between two members until its tokens are used up."""


def held_to(schema: dict[str, Any], param: str) -> dict[str, Any]:
    """Return the schema as the engine takes it.

    Raises APIError 400 for one that is none, or that the engine cannot hold to: it would answer without it.
    """
    strict = {"x-guidance": COMPACT, **schema}
    matcher = llguidance.LLMatcher(bytewise(), llguidance.LLMatcher.grammar_from_json_schema(json.dumps(strict)))
    matcher.compute_logit_bias()
    if matcher.is_error():
        reason = matcher.get_error().splitlines()[0]
        raise APIError(400, f"the answer cannot be held to this JSON schema: {reason}", param=param)
    return strict


@cache
def bytewise() -> Any:
    """Return a tokenizer whose tokens are single bytes: what can be spelt with it can be spelt with any."""
    return llguidance.LLTokenizer("byte")
