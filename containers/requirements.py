"""Write what each dependency group of pyproject.toml installs, one file a group: a layer depends on its group alone.

python3 requirements.py PYPROJECT FOLDER
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def requirements(group: str, groups: dict[str, list[Any]]) -> Iterator[str]:
    """Yield the requirements of a group, groups that it includes resolved."""
    for entry in groups[group]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from requirements(entry["include-group"], groups)


def write(project: Path, folder: Path) -> None:
    """Write FOLDER/<group>.txt for every group of `project`."""
    groups = tomllib.loads(project.read_text(encoding="utf-8"))["dependency-groups"]
    folder.mkdir(parents=True, exist_ok=True)
    for group in groups:
        lines = sorted(set(requirements(group, groups)))
        (folder / f"{group}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
