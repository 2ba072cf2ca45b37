"""What the rules read: the project's Python files, parsed once."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("flows", "tasks", "containers", "infra")
STAGES = tuple(sorted(p.parent.name for p in (ROOT / "containers").glob("*/contract.py")))


@cache
def sources(*rooms: str) -> tuple[Path, ...]:
    """Return every Python file below the given rooms (all four by default)."""
    return tuple(sorted(f for room in rooms or ROOMS for f in (ROOT / room).rglob("*.py")))


@cache
def tree(file: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path) -> set[str]:
    """Return the dotted names that a file imports, at any depth of nesting."""
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(file: Path) -> str:
    """Return a file's path as people write it, from the root of the project."""
    return file.relative_to(ROOT).as_posix()
