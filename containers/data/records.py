"""What readers yield: a record with its place, or a reject with its reason."""

from typing import Any, NamedTuple


class Record(NamedTuple):
    """One record as it stands in a file, columns not yet understood."""

    file: str
    line: int
    """From 1; in formats without lines the number of the record."""
    values: dict[str, Any]


class Reject(NamedTuple):
    """One row that cannot be used; its text stays out, for it may be private."""

    file: str
    line: int
    reason: str


class Bad(Exception):
    """A record that its converter refuses; the message is the reason of the reject."""
