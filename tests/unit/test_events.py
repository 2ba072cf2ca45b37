"""Following a file of events while it is written: whole lines only, nothing lost, nothing twice."""

import json

from infra.events import Tail, read_events


def line(number: int) -> bytes:
    return json.dumps({"time": 1, "event": "metrics", "step": number, "values": {"loss": 0.5}}).encode() + b"\n"


def test_lines_are_given_out_once_they_are_whole(tmp_path):
    file = tmp_path / "events.jsonl"
    tail = Tail(file)
    assert list(tail.read()) == []
    written = b"".join(line(i) for i in range(20))
    seen = []
    with file.open("ab", buffering=0) as stream:
        for start in range(0, len(written), 7):
            stream.write(written[start : start + 7])
            seen += [event["step"] for event in tail.read()]
    assert seen == list(range(20))
    assert list(tail.read()) == []


def test_a_character_may_be_torn(tmp_path):
    file = tmp_path / "events.jsonl"
    whole = (
        json.dumps({"event": "log", "level": "info", "text": "caf\u00e9 \u4e2d"}, ensure_ascii=False).encode() + b"\n"
    )
    tail = Tail(file)
    seen = []
    with file.open("ab", buffering=0) as stream:
        for byte in whole:
            stream.write(bytes([byte]))
            seen += list(tail.read())
    assert [event["text"] for event in seen] == ["caf\u00e9 \u4e2d"]


def test_a_foreign_line_is_told_and_the_next_one_read(tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"Traceback \xff\n[1, 2]\n\n" + line(3) + b'{"torn')
    events = read_events(file)
    assert [event["event"] for event in events] == ["log", "log", "metrics"]
    assert events[0]["text"].startswith("not an event: Traceback")


def test_silence_is_measured_from_the_last_byte(tmp_path):
    file = tmp_path / "events.jsonl"
    tail = Tail(file)
    began = tail.silent_since
    list(tail.read())
    assert tail.silent_since == began
    file.write_bytes(b'{"half')
    list(tail.read())
    assert tail.silent_since > began
