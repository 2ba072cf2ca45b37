"""Copy a stage's code, and no other stage's, into a folder: what its image holds (containers/Dockerfile).

    python -m containers.ship STAGE TARGET [EXPECTED_HASH]

TARGET/code.txt then holds the code's hash, which the docker runner compares with the source. Standard library only.
"""

import shutil
import sys
from pathlib import Path

from containers.code import HARNESS, ROOT, Code, file_of

NOT_INSIDE = {"containers.server"}
"""Of the harness, what only the process runner uses."""


def ship(word: str, target: Path) -> str:
    """Copy what makes up the stage `word` below `target`; return the hash of its code."""
    code = Code(word)
    for name in (*code.parts, *(HARNESS - NOT_INSIDE)):
        file = file_of(name, ROOT) or ROOT.parent / name
        copied = target / file.relative_to(ROOT.parent)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copied)
    if Code(word, target / ROOT.name).digest != code.digest:
        raise SystemExit(f"the code of {word} is not whole in {target}: some file of it is named by no import")
    (target / "code.txt").write_text(code.digest, encoding="utf-8")
    return code.digest


def main(word: str, target: Path, expected: str = "") -> None:
    """Ship a stage; exits where the host expects other code than lies here."""
    found = ship(word, target)
    if expected not in ("", found):
        raise SystemExit(f"the code of {word} here is {found}, not {expected}: build again")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:4])
