"""Recorded answers of a judge, one JSON object a line: `model`, `messages`, `parameters`, `answer`, `finished`.

An answer belongs to the hash of what was asked (model, messages, parameters), wherever the endpoint stood; `null` is a
refusal. Answers are appended to work/ as they come or are of use, so that a killed run pays for none twice, and all of
them are written to outputs/recorded/answers.jsonl, sorted, for a person to give back.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from containers.contract import StageError, files_in
from containers.speaking import Reply

FILE = "answers.jsonl"


class Recording:
    """What a judge has said so far."""

    def __init__(self, given: Path | None, work: Path) -> None:
        """Read a person's files in `given`, and what an earlier attempt left in `work`.

        Raises StageError (file:line) where a line is no recorded answer.
        """
        self.said: dict[str, dict[str, Any]] = {}
        self.used: set[str] = set()
        for file in files_in(given) if given else ():
            for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
                if line.strip():
                    self.take(line, f"{file.name}:{number}")
        self.journal = work / FILE
        left = self.journal.read_text(encoding="utf-8", errors="replace") if self.journal.is_file() else ""
        whole = left[: left.rfind("\n") + 1]  # a kill may have torn the last line
        self.journal.write_text(whole, encoding="utf-8")
        for line in filter(None, whole.split("\n")):
            self.used.add(self.take(line, f"work/{FILE}"))

    def take(self, line: str, place: str) -> str:
        """Keep one line and return its key; raises StageError naming its `place` where it is not one of ours."""
        try:
            said = json.loads(line)
            key = key_of(said["model"], said["messages"], said["parameters"])
            if not (said["answer"] is None or isinstance(said["answer"], str)) or not isinstance(
                said["finished"], bool
            ):
                raise ValueError("the answer is no text")
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(
                f"{place}: not a recorded answer ({type(error).__name__}: {error}): give the recorded/answers.jsonl "
                "of an earlier run as it is"
            ) from error
        self.said.setdefault(key, said)
        return key

    def holds(self, key: str) -> bool:
        """Tell whether this was asked before."""
        return key in self.said

    def reply(self, key: str) -> Reply | None:
        """Return what was answered to a key that is held, None where it was refused."""
        said = self.said[key]
        self.use(key)
        return None if said["answer"] is None else Reply(said["answer"], said["finished"])

    def add(self, asked: dict[str, Any], reply: Reply | None) -> None:
        """Keep the answer to `asked` (model, messages, parameters), on disk at once."""
        said = {**asked, "answer": reply.text if reply else None, "finished": bool(reply and reply.finished)}
        key = key_of(asked["model"], asked["messages"], asked["parameters"])
        self.said[key] = said
        self.use(key)

    def use(self, key: str) -> None:
        """Note on disk that this answer was of use."""
        if key not in self.used:
            self.used.add(key)
            with self.journal.open("a", encoding="utf-8") as stream:
                stream.write(line_of(self.said[key]))

    def write(self, folder: Path) -> None:
        """Write the answers that were of use to `folder`, in the order of their keys."""
        text = "".join(line_of(self.said[key]) for key in sorted(self.used))
        (folder / FILE).write_text(text, encoding="utf-8")


def line_of(said: dict[str, Any]) -> str:
    """Return one line of a recording."""
    return json.dumps(said, ensure_ascii=False, sort_keys=True) + "\n"


def key_of(model: str, messages: Any, parameters: dict[str, Any]) -> str:
    """Return the sha256 of what is asked, as canonical JSON."""
    text = json.dumps([model, messages, parameters], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
