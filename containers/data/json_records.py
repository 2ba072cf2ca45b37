"""Records from JSON lines, and from one JSON list of any size, read block by block."""

import json
from collections.abc import Iterator
from typing import Any

from containers.contract import StageError
from containers.data.records import Record, Reject
from containers.data.streams import BROKEN, Source, lines_of

BLOCK = 1 << 20
MAX_RECORD = 1 << 25
WHITE = " \t\r\n,"


def from_lines(source: Source) -> Iterator[Record | Reject]:
    """Yield one record per line; empty lines are skipped."""
    for number, text, reason in lines_of(source):
        if text is None:
            yield Reject(source.name, number, reason)
        elif text and not text.isspace():
            yield parsed(source.name, number, text)


def parsed(file: str, line: int, text: str) -> Record | Reject:
    """Return the object that `text` holds, or why it holds none."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        cut = not text.rstrip().endswith("}")
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        return Reject(file, line, f"not JSON: {'the line is cut off' if cut else reason}")
    return checked(file, line, values)


def checked(file: str, line: int, values: Any) -> Record | Reject:
    """Return a record of a JSON object, a reject of anything else."""
    if isinstance(values, dict):
        return Record(file, line, values)
    if isinstance(values, str):
        return Record(file, line, {"text": values})
    return Reject(file, line, f"a JSON {type(values).__name__}, where an object with named columns is needed")


def from_list(source: Source) -> Iterator[Record | Reject]:
    """Yield the objects of one JSON list with the line where each begins; what follows a damaged one is rejected."""
    window = Window(source)
    window.skip("[")
    if not window.text:
        raise StageError(f"{source.name}:{window.line}: an empty JSON list: fill it, or remove it from the recipe")
    while True:
        window.skip(WHITE)
        if not window.text or window.text[0] == "]":
            if window.damage or not window.text:
                yield Reject(source.name, window.line, window.damage or "the JSON list is cut off: no closing bracket")
            return
        line = window.line
        found = window.take()
        if isinstance(found, str):
            yield Reject(source.name, line, found)
            return
        yield checked(source.name, line, found[0])


class Window:
    """A moving window of text over a stream."""

    def __init__(self, source: Source) -> None:
        """Begin at the start of `source`."""
        self.source = source
        self.text = source.stream.read(3).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        self.pending = b""
        self.line = 1
        self.damage = ""
        self.decoder = json.JSONDecoder()

    def more(self) -> bool:
        """Append one block, doubling with what is held; return False at the end or where the stream is broken."""
        try:
            data = self.source.stream.read1(max(BLOCK, len(self.text)))
        except BROKEN as error:
            self.damage = f"the compressed file is broken from here on ({error})"
            return False
        whole = self.pending + data
        cut = len(whole) - next((i for i in range(1, min(4, len(whole)) + 1) if whole[-i] >= 0xC0), 0)
        self.pending = whole[cut:] if data else b""
        self.text += (whole[:cut] if data else whole).decode("utf-8", "replace")
        return bool(data)

    def skip(self, characters: str) -> None:
        """Drop leading characters that are in `characters` or white space."""
        while True:
            rest = self.text.lstrip(characters + WHITE)
            self.line += self.text.count("\n", 0, len(self.text) - len(rest))
            self.text = rest
            if rest or not self.more():
                return

    def take(self) -> tuple[Any] | str:
        """Return the value that begins here in a tuple, or the reason why there is none."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text)
            except (ValueError, RecursionError) as error:
                incomplete = not isinstance(error, json.JSONDecodeError) or error.pos > len(self.text) - 64
                if "Unterminated" in str(error) or incomplete:
                    if len(self.text) < MAX_RECORD and self.more():
                        continue
                    return self.damage or f"the JSON list is cut off or damaged here: {error}"
                return f"not JSON: {error}; the rest of the list is not read"
            self.line += self.text.count("\n", 0, end)
            self.text = self.text[end:]
            return (value,)
