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
NOT_CONTROL = bytes(byte for byte in range(256) if byte >= 32 or byte in b"\t\n\r\f\x1b")


Stream = io.BufferedReader | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile


class Source(NamedTuple):
    """One opened file."""

    name: str
    """Its name below the folder of its source."""
    stream: Stream
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
def opened(path: Path, name: str) -> Iterator[Source]:
    """Yield the file at `path`, decompressed; raises StageError when it is empty or not what its name says."""
    with path.open("rb") as raw:
        packing = packing_of(path, raw)
        stream = unpacked(raw, packing)
        try:
            head = bytes(stream.peek(HEAD_BYTES)[:HEAD_BYTES])
        except BROKEN as error:
            raise StageError(f"{name}:1: not a readable {packing} file ({error}): pack it again") from error
        if not head.strip():
            raise StageError(f"{name}:1: the file is empty: remove it from the recipe, or fill it")
        yield Source(name, stream, raw, head)


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


def unpacked(raw: BinaryIO, packing: str) -> Stream:
    """Return the decompressed bytes; not buffered once more, or what stands before a break would be lost with it."""
    if packing == "gz":
        return gzip.GzipFile(fileobj=raw)
    if packing == "bz2":
        return bz2.BZ2File(raw)
    if packing == "xz":
        return lzma.LZMAFile(raw)
    if packing == "zst":
        return io.BufferedReader(ArrowStream(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")))
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
    """Tell whether `head` is not text in any encoding of bytes: a NUL, or many control characters."""
    return b"\0" in head or len(head.translate(None, NOT_CONTROL)) > len(head) // 20


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
            yield Line(number, None, f"not UTF-8 at byte {error.start} of the line: convert it with iconv")
