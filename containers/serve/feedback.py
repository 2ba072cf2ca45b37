"""What people say of answers: appended to JSON lines, never changed, each row once, so many per key.

    feedback.jsonl      a thumb, with a comment if there is one
    preferences.jsonl   two or more answers to one prompt, ranked

`data.preferences.sources` reads both as they are. A row is known by its id: the client's, or the digest of what it
says. Sent again it is not written again.
"""

import asyncio
import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from containers.contract import StageError
from containers.serve.errors import APIError
from containers.serve.metrics import FEEDBACK

KINDS = ("feedback", "preferences")


class Ledger:
    """The two files in `folder`; without a folder nothing can be left."""

    def __init__(self, folder: Path | None, per_key: int) -> None:
        """Read what is there already: ids, and how much each key has left; raises StageError for a broken file."""
        self._folder, self._per_key = folder, per_key
        self._digests: dict[tuple[str, str], str] = {}
        self._left: Counter[str] = Counter()
        self._turn = asyncio.Lock()
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            file = folder / f"{kind}.jsonl"
            if file.exists():
                self._remember(file)

    @property
    def kept(self) -> bool:
        """Whether anything can be left."""
        return self._folder is not None

    def _remember(self, file: Path) -> None:
        """Take the rows of a file; a last line that a crash cut short was never acknowledged, and goes."""
        text = file.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.truncate(file, whole)
        for number, line in enumerate(text[:whole].splitlines(), 1):
            try:
                row = json.loads(line)
                self._digests[row["rater"], row["id"]] = row["digest"]
                self._left[row["rater"]] += 1
            except (ValueError, KeyError, TypeError) as error:
                raise StageError(f"{file}:{number}: no row of this service ({error}): move the file away") from error

    async def add(self, kind: str, owner: str, name: str | None, values: dict[str, Any]) -> tuple[str, bool]:
        """Write a row; return (its id, whether it is new).

        Raises APIError: 404 where nothing is kept, 409 for an id that stands for something else, 429 past the cap.
        """
        if self._folder is None:
            raise APIError(404, "this server keeps no feedback: start it with SLIPWAY_FEEDBACK=FOLDER")
        digest = hashlib.sha256(json.dumps([kind, values], sort_keys=True).encode()).hexdigest()
        identity = name or digest[:24]
        async with self._turn:
            known = self._digests.get((owner, identity))
            if known == digest:
                return identity, False
            if known:
                raise APIError(409, f"the id {identity!r} was used for something else", param="id")
            if self._left[owner] >= self._per_key:
                raise APIError(429, f"this key has left {self._per_key} rows, which is all it may", code="feedback_cap")
            about = {"id": identity, "rater": owner, "digest": digest, "time": int(time.time())}
            line = json.dumps({**about, **values}, ensure_ascii=False) + "\n"
            await asyncio.to_thread(append, self._folder / f"{kind}.jsonl", line)
            self._digests[owner, identity] = digest
            self._left[owner] += 1
        FEEDBACK.labels(kind).inc()
        return identity, True


def append(file: Path, line: str) -> None:
    """Append a line and have it on the disk before returning."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())
