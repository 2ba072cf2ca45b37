"""What code a stage is: the import closure of its main.py within containers/, hashed so that only meaning counts.

Python is hashed as its syntax tree without docstrings: comments, layout and documentation change nothing. Everything
else in the stage's own folder (templates, pages, programs that it ships) is hashed too. Standard library only: the
host uses it for fingerprints, the child to refuse code that is not what was fingerprinted.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent
HARNESS = {"containers", "containers.code", "containers.entrypoint", "containers.processes", "containers.server"}
"""What carries a stage without shaping its result."""
KEEL = ("containers.contract", "containers.out")


class CodeMismatch(Exception):
    """The code that would run is not the code that was fingerprinted."""


class Code:
    """The code of one stage as it stood on disk when this was made."""

    def __init__(self, word: str, root: Path = ROOT) -> None:
        """Read the closure of `root`/<word>/main.py."""
        self.word = word
        self.root = root
        self.parts = dict(sorted(parts_of(word, root).items()))
        """Module (or file) name -> sha256."""
        self._known: set[str] = set()

    @property
    def digest(self) -> str:
        """One sha256 over all parts."""
        return hashlib.sha256("".join(f"{name} {part}\n" for name, part in self.parts.items()).encode()).hexdigest()

    def check_imported(self) -> None:
        """Raise CodeMismatch unless what this process imported since the last check is what `parts` holds."""
        package = self.root.name
        loaded = {name for name in list(sys.modules) if name == package or name.startswith(f"{package}.")}
        for name in sorted(loaded - self._known - HARNESS):
            file = sys.modules[name].__file__
            if name not in self.parts:
                raise CodeMismatch(
                    f"{self.word} imported {name}, which no import statement in its files names: import it by name, "
                    "so that a change of it counts"
                )
            if file and digest_of_python(Path(file)) != self.parts[name]:
                raise CodeMismatch(f"{file} changed while {self.word} was starting: run it again")
        self._known |= loaded


def parts_of(word: str, root: Path = ROOT) -> dict[str, str]:
    """Return name -> sha256 of every module and file that makes up the stage `word`.

    A package that is imported as such (`from containers import serve`) counts with all its files.
    """
    parts: dict[str, str] = {}
    folders = {root / word}
    waiting = [f"{root.name}.{word}.main", f"{root.name}.{word}.contract", *KEEL]
    while waiting:
        name = waiting.pop()
        file = file_of(name, root)
        if name in parts or name in HARNESS or file is None:
            continue
        parts[name] = digest_of_python(file)
        named = imported(file, name, root.name)
        waiting += [*parents(name), *named]
        packages = {found.parent for each in named if (found := file_of(each, root)) and found.name == "__init__.py"}
        folders |= packages - {root}
    for file in (file for folder in sorted(folders) for file in own_files(folder)):
        name = file.relative_to(root.parent).as_posix()
        if file.suffix != ".py":
            parts[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        elif module_name(file, root) not in parts:
            parts[module_name(file, root)] = digest_of_python(file)
    return parts


def own_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a stage's folder, but for what editors and Python leave there."""
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "__pycache__")) for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden:
            yield file


def file_of(name: str, root: Path) -> Path | None:
    """Return the file of a dotted module name below `root`, None where there is none."""
    first, *rest = name.split(".")
    if first != root.name:
        return None
    path = root.joinpath(*rest)
    package = path / "__init__.py"
    if package.is_file():
        return package
    file = path.with_suffix(".py")
    return file if rest and file.is_file() else None


def module_name(file: Path, root: Path) -> str:
    """Return the dotted name of a file below `root`."""
    parts = file.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parents(name: str) -> list[str]:
    """Return the packages around a module: importing it runs them."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def imported(file: Path, name: str, package: str) -> set[str]:
    """Return the modules of `package` that a file may import, at any depth of nesting (attributes among them)."""
    found: set[str] = set()
    inside = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(parsed(file, file.stat().st_mtime_ns)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = inside.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {module for module in found if module.split(".")[0] == package}


def digest_of_python(file: Path) -> str:
    """Return the sha256 of a file's syntax tree without bare strings (docstrings and field documentation)."""
    return _digest_of_python(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_of_python(file: Path, _changed: int) -> str:
    return hashlib.sha256(canonical(parsed(file, _changed)).encode()).hexdigest()


@lru_cache(maxsize=4096)
def parsed(file: Path, _changed: int) -> ast.Module:
    """Return the syntax tree of a file; `_changed` (its mtime) keeps a stale one from being reused."""
    return ast.parse(file.read_bytes(), filename=str(file))


def canonical(node: object) -> str:
    """Return a text of a tree that says what it means, equal across Python versions where the meaning is.

    Absent and empty fields are left out: newer versions add some.
    """
    if isinstance(node, list):
        return "[" + ",".join(canonical(item) for item in node if not is_documentation(item)) + "]"
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__}:{node!r}"
    fields = ((name, getattr(node, name, None)) for name in node._fields)
    written = ",".join(f"{name}={canonical(value)}" for name, value in fields if value not in (None, []))
    return f"{type(node).__name__}({written})"


def is_documentation(node: object) -> bool:
    """Whether a statement is a bare string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
