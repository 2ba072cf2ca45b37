"""Which bytes lie in a file, remembered by its stat: an unchanged file of 8 GB is hashed once, not at every run."""

import sqlite3
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from containers.contract import digest_of_file

SETTLED_SECONDS = 2.0
"""A file changed more recently may change again within one tick of its clock, so its digest is not remembered."""
TABLE = "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INT, changed INT, inode INT, sha256 TEXT)"


class Digests:
    """A table of (path, size, ctime, inode) -> sha256; several processes may use it at once.

    The time of the inode's change, not of the content's: copying tools set the latter back.
    """

    def __init__(self, file: Path) -> None:
        """Open or make the table at `file`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self.table = sqlite3.connect(file, timeout=60, isolation_level=None)
        self.table.execute(TABLE)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the table."""
        self.table.close()

    def of(self, file: Path) -> str:
        """Return the sha256 of the file's bytes."""
        stat = file.stat()
        key = (str(file.absolute()), stat.st_size, stat.st_ctime_ns, stat.st_ino)
        known = "SELECT sha256 FROM digests WHERE path = ? AND size = ? AND changed = ? AND inode = ?"
        found = self.table.execute(known, key).fetchone()
        if found is not None:
            return str(found[0])
        digest = digest_of_file(file)
        if time.time() - stat.st_ctime > SETTLED_SECONDS:
            self.table.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", (*key, digest))
        return digest
