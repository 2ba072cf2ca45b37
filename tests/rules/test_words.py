"""No drawers, no paths of a machine, ASCII in code, every dependency pinned."""

import re
import subprocess
import tomllib
from pathlib import Path

from tests.rules.house import ROOT, name_of, sources

DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}
MACHINE_PATHS = re.compile(r"(?<![\w.])/(home|root|Users|work)/\w")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def test_there_are_no_drawers() -> None:
    wrong = [name_of(f) for f in tracked() if f.stem in DRAWERS or f.parent.name in DRAWERS]
    assert not wrong, f"a home is a noun: {wrong}"


def test_code_is_ascii() -> None:
    wrong = [name_of(f) for f in sources() if not f.read_text(encoding="utf-8").isascii()]
    assert not wrong, wrong


def test_no_file_names_a_path_of_a_machine() -> None:
    wrong = []
    for file in tracked():
        if file.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".sh", ""} and file != Path(__file__):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if MACHINE_PATHS.search(line):
                    wrong.append(f"{name_of(file)}:{number}")
    assert not wrong, wrong


def test_every_dependency_is_pinned_once() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = {plain(entry) for group in groups.values() for entry in group if isinstance(entry, str)}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = [plain(line.split("==")[0]) for line in lines]
    assert all("==" in line for line in lines), [line for line in lines if "==" not in line]
    assert len(pinned) == len(set(pinned)), "a package is pinned twice"
    assert wanted <= set(pinned), f"not pinned: {sorted(wanted - set(pinned))}"


def plain(requirement: str) -> str:
    """Return the normalised name of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()
