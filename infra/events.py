"""Follow the events.jsonl of a running stage."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Tail:
    """Reads a growing file of JSON lines; a line is given out once it is whole."""

    def __init__(self, file: Path) -> None:
        """Follow `file`, which may not exist yet."""
        self.file = file
        self.silent_since = time.monotonic()
        """When something was last written, on the monotonic clock."""
        self._offset = 0
        self._begun = b""

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the events that were completed since the last call; a torn or foreign line becomes a log event."""
        try:
            with self.file.open("rb") as stream:
                stream.seek(self._offset)
                written = stream.read()
        except FileNotFoundError:
            return
        if not written:
            return
        self.silent_since = time.monotonic()
        self._offset += len(written)
        *lines, self._begun = (self._begun + written).split(b"\n")
        yield from (event_of(line) for line in lines if line.strip())


def event_of(line: bytes) -> dict[str, Any]:
    """Return the event that a line holds."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    text = line.decode(errors="replace")
    return {"time": round(time.time(), 3), "event": "log", "level": "warning", "text": f"not an event: {text[:500]}"}


def read_events(file: Path) -> list[dict[str, Any]]:
    """Return every whole event of a file."""
    return list(Tail(file).read())
