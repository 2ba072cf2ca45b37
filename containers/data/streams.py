"""Open a person's file: decompression by magic number, text by line, and a clear word where bytes are not text."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from containers.contract import StageError

MAGIC = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
SUFFIXES = {".gz": "gz", ".zst": "zst", ".bz2": "bz2", ".xz": "xz"}
BROKEN = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What decompressors raise in the middle of a damaged stream (gzip's own error is an OSError)."""
HEAD_BYTES = 65536
MAX_LINE_BYTES = 1 << 25


class Source(NamedTuple):
    """One opened file."""

    name: str
    """Its name without the folder, compression suffix included."""
    stream: BinaryIO
    raw: BinaryIO
    """The bytes on disk, whose position tells how far reading is."""
    head: bytes
    """The first bytes, decompressed."""


class Line(NamedTuple):
    """One line of a text file; `text` is None where the bytes are not UTF-8 or the stream broke here."""

    number: int
    text: str | None
    reason: str = ""


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Yield the file at `path`, decompressed; raises StageError when it is empty, not what its name says, or binary."""
    with path.open("rb") as raw:
        packing = packing_of(path, raw)
        stream = unpacked(raw, packing)
        try:
            head = stream.peek(HEAD_BYTES)[:HEAD_BYTES] if packing else raw.peek(HEAD_BYTES)[:HEAD_BYTES]
        except BROKEN as error:
            raise StageError(f"{path.name}:1: not a readable {packing} file ({error}): pack it again") from error
        if not head.strip():
            raise StageError(f"{path.name}:1: the file is empty: remove it from the recipe, or fill it")
        yield Source(path.name, stream, raw, head)


def packing_of(path: Path, raw: BinaryIO) -> str:
    """Return gz, zst, bz2, xz or "" from the first bytes; raises StageError when the name says otherwise."""
    magic = raw.read(6)
    raw.seek(0)
    found = next((name for start, name in MAGIC.items() if magic.startswith(start)), "")
    named = SUFFIXES.get(path.suffix.lower(), "")
    if named and magic and named != found:
        is_now = f"{found} data" if found else "not compressed"
        raise StageError(f"{path.name}:1: named {path.suffix}, but it is {is_now}: rename it, or pack it again")
    return found


def unpacked(raw: BinaryIO, packing: str) -> io.BufferedReader:
    """Return a buffered reader of the decompressed bytes."""
    if packing == "gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 20)
    if packing == "bz2":
        return io.BufferedReader(bz2.BZ2File(raw), 1 << 20)
    if packing == "xz":
        return io.BufferedReader(lzma.LZMAFile(raw), 1 << 20)
    if packing == "zst":
        return io.BufferedReader(ArrowStream(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")), 1 << 20)
    return io.BufferedReader(raw, 1 << 20)  # type: ignore[arg-type]


class ArrowStream(io.RawIOBase):
    """Arrow's decompressor as a Python stream: unlike python-zstandard's it tells a truncated file from a whole one."""

    def __init__(self, stream: pa.NativeFile) -> None:
        """Take an open Arrow input stream."""
        self.stream = stream

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` and return how many bytes were read."""
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def is_binary(head: bytes) -> bool:
    """Tell whether `head` is not UTF-8 text: a NUL byte, or bad bytes before a cut last character."""
    if b"\0" in head:
        return True
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = sum(byte >= 128 for byte in head)
        return error.start < len(head) - 4 and bad > len(head) // 10
    return False


def lines_of(source: Source) -> Iterator[Line]:
    """Yield each line without its end; a line that is not UTF-8, and a stream that breaks, have a reason instead."""
    number = 0
    while True:
        number += 1
        try:
            data = source.stream.readline(MAX_LINE_BYTES)
        except BROKEN as error:
            yield Line(number, None, f"the compressed file is broken from here on ({error})")
            return
        if not data:
            return
        if number == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        try:
            yield Line(number, data.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            yield Line(number, None, f"not UTF-8 at byte {error.start} of the line")
