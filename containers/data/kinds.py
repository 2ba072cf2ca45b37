"""Recognise how a file is cut into records, and cut it: JSON lines, a JSON list, tables, documents."""

from collections.abc import Callable, Iterator
from pathlib import Path

from containers.contract import StageError
from containers.data import documents, json_records, tables
from containers.data.records import Record, Reject
from containers.data.source import Kind
from containers.data.streams import SUFFIXES, Source, is_binary, opened

Cutter = Callable[[Source], Iterator[Record | Reject]]

BY_SUFFIX: dict[str, Kind] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv",
    ".txt": "text", ".text": "text", ".md": "text", ".markdown": "text", ".rst": "text", ".tex": "text",
    ".html": "html", ".htm": "html", ".xhtml": "html",
}  # fmt: skip
CODE = frozenset({
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt", ".scala", ".js",
    ".jsx", ".ts", ".tsx", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".swift", ".cs", ".sh", ".bash", ".zsh",
    ".sql", ".hs", ".ml", ".ex", ".erl", ".clj", ".lisp", ".zig", ".nim", ".yaml", ".yml", ".toml", ".ini",
    ".cfg", ".css", ".cmake", ".proto",
})  # fmt: skip
CUTTERS: dict[Kind, Cutter] = {
    "jsonl": json_records.from_lines,
    "json": json_records.from_list,
    "csv": tables.from_csv,
    "tsv": tables.from_csv,
    "text": documents.whole,
    "code": documents.whole,
    "lines": documents.by_line,
    "separated": documents.separated,
    "wikitext": documents.articles,
    "html": documents.page,
}


def records_of(path: Path, name: str, forced: Kind | None) -> tuple[Kind, Iterator[Record | Reject], Callable[[], int]]:
    """Return (kind, records, bytes read so far) of one file; raises StageError where nothing in it can be read."""
    if path.stat().st_size == 0:
        raise StageError(f"{name}:1: the file is empty: remove it from the recipe, or fill it")
    with path.open("rb") as stream:
        is_parquet = stream.read(4) == b"PAR1"
    if is_parquet or forced == "parquet" or path.suffix == ".parquet":
        return "parquet", tables.from_parquet(path, name), lambda: 0
    with opened(path, name) as source:
        kind = forced or recognise(source)
    position = [0]
    return kind, cut(path, name, kind, position), lambda: position[0]


def cut(path: Path, name: str, kind: Kind, position: list[int]) -> Iterator[Record | Reject]:
    """Yield the records of `path`, keeping position[0] at the bytes read from disk."""
    with opened(path, name) as source:
        for item in CUTTERS[kind](source):
            position[0] = source.raw.tell()
            yield item


def recognise(source: Source) -> Kind:
    """Return the kind that a file's name tells, or else its first bytes; raises StageError for binary data."""
    head = source.head
    if is_binary(head):
        raise StageError(
            f"{source.name}:1: binary data, not text: give text, JSON, CSV, parquet or HTML "
            "(in UTF-8; packed as gz, zst, bz2 or xz if you like), or leave the file out"
        )
    suffixes = [s.lower() for s in Path(source.name).suffixes if s.lower() not in SUFFIXES]
    suffix = suffixes[-1] if suffixes else ""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if suffix in CODE:
        return "code"
    named = BY_SUFFIX.get(suffix)
    if named == "json":
        return "json" if start.startswith(b"[") else "jsonl"
    if named == "text" or named is None:
        return of_text(head, start, plain=named == "text")
    return named


def of_text(head: bytes, start: bytes, *, plain: bool) -> Kind:
    """Return the kind of a text file from its first bytes; `plain`: its name says text, so it is not parsed."""
    if not plain and start.startswith(b"{"):
        return "jsonl"
    if not plain and start.startswith(b"[{"):
        return "json"
    if not plain and start[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    if documents.SEPARATOR_LINE.search(head):
        return "separated"
    return "wikitext" if documents.is_wikitext(head) else "text"
