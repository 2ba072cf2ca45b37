"""The README is true: its tree, its make targets and its commands exist."""

import re
import subprocess
import sys

from tests.rules.house import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_path_in_the_tree_exists() -> None:
    tree = README.split("## The house")[1].split("```")[1]
    room, missing = "", []
    for line in tree.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            room = name
        path = ROOT / (name if not line.startswith(" ") else room + name)
        if "<" not in name and "*" not in name and not path.exists():
            missing.append(str(path.relative_to(ROOT)))
    assert room and not missing, missing


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert named and named <= targets, named - targets


def test_every_command_exists() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "flows.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    named = set(re.findall(r"\./slipway ([a-z]+)", README))
    missing = sorted(name for name in named if not re.search(rf"\b{name}\b", shown))
    assert named and not missing, missing


def test_every_link_to_a_file_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link and not link.startswith("#")]
    missing = [link for link in links if not (ROOT / link).exists()]
    assert links and not missing, missing
