"""Rate limits by key, keys and the frames of tool calls, without a server."""

import json
from pathlib import Path

import pytest

from containers.contract import StageError
from containers.serve.contract import ServeConfig
from containers.serve.errors import APIError
from containers.serve.jobs import Piece
from containers.serve.keys import Keyring, digest_of_key
from containers.serve.limits import Limits
from containers.serve.schemas import held_to
from containers.serve.tool_frames import ToolReply
from containers.serve.tools import calls_in, said_before_calls


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_tells_the_wait_and_fills_again() -> None:
    clock = Clock()
    limits = Limits(ServeConfig(tokens_per_minute=600), clock)
    limits.take("ann", 500)
    with pytest.raises(APIError) as refused:
        limits.take("ann", 200)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "10"})
    limits.take("bob", 600)
    clock.now = 10
    limits.take("ann", 200)
    limits.give_back("ann", 150)
    limits.take("ann", 150)
    with pytest.raises(APIError, match="ask for less") as refused:
        limits.take("ann", 601)
    assert refused.value.status == 400


def test_requests_are_counted_and_a_refused_one_takes_nothing() -> None:
    clock = Clock()
    limits = Limits(ServeConfig(requests_per_minute=2, tokens_per_minute=100), clock)
    limits.take("ann", 60)
    with pytest.raises(APIError, match="100 tokens a minute"):
        limits.take("ann", 60)
    limits.take("ann", 40)
    with pytest.raises(APIError, match="2 requests a minute"):
        limits.take("ann", 0)
    clock.now = 3600
    limits.take("ann", 100)


def test_without_limits_everything_is_let_in() -> None:
    limits = Limits(ServeConfig())
    for _ in range(1000):
        limits.take("ann", 10**9)


def test_a_broken_file_of_keys_stops_the_start_but_not_a_running_service(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for broken in ("", "[]", "3", '{"ann": 3}'):
        file.write_text(broken)
        with pytest.raises(StageError, match=r"keys\.json holds no API keys"):
            Keyring(file)
    file.write_text(json.dumps({"ann": [digest_of_key("one")]}))
    ring = Keyring(file)
    assert ring.owner_of("Bearer one") == "ann"
    file.write_text("{")
    assert ring.owner_of("bearer  one") == "ann"
    file.write_text(json.dumps({"bob": [digest_of_key("two"), digest_of_key("\udce9")]}))
    assert ring.owner_of("Bearer two") == "bob"
    for wrong in ("", "Bearer", "Bearer one", "Basic two", "two", "Bearer \udcff"):
        with pytest.raises(APIError) as refused:
            ring.owner_of(wrong)
        assert refused.value.status == 401


@pytest.mark.parametrize(
    ("text", "rest", "names"),
    [
        ("Hello", "Hello", []),
        ('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', "", ["f"]),
        ('So. <tool_call>{"name": "f"}</tool_call><tool_call>{"name": "g"}</tool_call>', "So.", ["f", "g"]),
        ('<tool_call>{"name": "f", "arguments": {', '<tool_call>{"name": "f", "arguments": {', []),
        ('<tool_call>{"name": "rm"}</tool_call>', '<tool_call>{"name": "rm"}</tool_call>', []),
        ('<tool_call>{"name": ["f"]}</tool_call>', '<tool_call>{"name": ["f"]}</tool_call>', []),
        ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
    ],
)
def test_calls_are_read_and_what_is_none_stays_text(text: str, rest: str, names: list[str]) -> None:
    found, calls = calls_in(text, ("f", "g"))
    assert (found, [call["function"]["name"] for call in calls]) == (rest, names)


@pytest.mark.parametrize("text", ["Hi", "a < b", "<tool", "x<tool_call>y", "<<tool_call>"])
def test_a_stream_loses_no_letter_and_tells_no_part_of_a_call(text: str) -> None:
    reply = ToolReply("m", "v", True, 1, functions=("f",))
    told = ""
    for number, letter in enumerate(text):
        piece = Piece(0, letter, "stop" if number == len(text) - 1 else None)
        reply.add(piece)
        for line in reply.frame(piece).decode().split("\n\n"):
            if line:
                told += json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "")
    assert told == text
    assert said_before_calls("so <tool_ca") == len("so ")


def test_a_schema_is_held_without_white_space_unless_it_says_otherwise() -> None:
    assert held_to({"type": "object"}, "x")["x-guidance"]["whitespace_flexible"] is False
    own = {"type": "object", "x-guidance": {"whitespace_flexible": True}}
    assert held_to(own, "x") == own
    for wrong in ({"type": "colour"}, {"$ref": "#"}, {"enum": []}, {"type": "string", "pattern": "("}):
        with pytest.raises(APIError, match="cannot be held"):
            held_to(wrong, "response_format")
