"""What a person names in a recipe, found on this machine: files, folders, globs, and pinned names on the hub.

A path becomes a `Files` artifact: a folder of links under `<home>/sources/<digest>/`, names kept, with the digest of
the bytes, so that a stage's fingerprint says what was read and not where it lay. An unchanged file is hashed once.
"""

import difflib
import glob
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from containers.contract import Dataset, Files, StageError, combined
from containers.data.contract import DataConfig, SourceConfig
from infra.digests import Digests
from infra.hub import newest_commit
from infra.launch import current_launch
from infra.pins import is_pin, pinned_artifact

NOT_DATA = ("readme", "license", "licence", "notice", "copying", "dataset_infos.json")
"""Beginnings of names that lie beside data in a folder; named by path or glob they are read like any file."""
MAGIC = "*?["


def home() -> Path:
    """Return where Slipway writes."""
    return current_launch().settings.home.absolute()


def resolve(config: DataConfig, role: str) -> dict[str, Files]:
    """Return the files of each source that has some, keyed by its index; raises StageError naming the source."""
    named = {str(i): path for i, source in enumerate(config.sources) if (path := place_of(source)) is not None}
    with Digests(home() / "sources" / "digests.sqlite") as digests:
        return {i: files_at(path, f"data.{role}.sources.{i}.path", digests) for i, path in named.items()}


def pinned_dataset(config: DataConfig, role: str) -> Dataset | None:
    """Return the finished dataset that a role's only source pins, None where none does; raises StageError."""
    pins = [source.path for source in config.sources if source.path and is_pin(source.path)]
    if not pins:
        return None
    place = f"data.{role}.sources"
    if len(config.sources) > 1:
        raise StageError(f"{place}: {pins[0]} is used as it is, cleaned and split: make it the only source")
    dataset = pinned_artifact(pins[0], Dataset, f"{place}.0.path")
    if dataset.role != role:
        raise StageError(f"{place}: {pins[0]} holds {dataset.role}: give data.{role} a source of its own")
    return dataset


def functions_of(named: dict[str, str]) -> Files | None:
    """Return the files of a person's functions side by side, None for none; `named`: place in the recipe -> path.

    A path is a Python file, or the name of a module that can be imported here. Raises StageError naming the place.
    """
    found: dict[str, Path] = {}
    for place, path in named.items():
        file = Path(path) if path.endswith(".py") else module_file(path, place)
        if not file.is_file():
            raise StageError(f"{place}: {missing(file)}")
        if found.setdefault(file.name, file.resolve()) != file.resolve():
            raise StageError(f"{place}: two files of the name {file.name}: rename one")
    with Digests(home() / "sources" / "digests.sqlite") as digests:
        return linked_files(found, digests) if found else None


def module_file(name: str, place: str) -> Path:
    """Return the file of a module, without importing it; raises StageError where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise StageError(f"{place}: no module {name}: {error}") from error
    if spec is None or Path(spec.origin or "").name != f"{name.rpartition('.')[2]}.py":
        raise StageError(f"{place}: no module {name} with a Python file of its own: give the path of a file instead")
    return Path(str(spec.origin))


def place_of(source: SourceConfig) -> str | None:
    """Return where a source's files lie; a hub name may be a folder here."""
    local = source.hub is not None and Path(source.hub).is_dir()
    return source.hub if local else source.path


def pinned(config: DataConfig) -> DataConfig:
    """Return the config with every hub dataset at a commit: the newest where a recipe names none."""
    return config.revise(sources=tuple(pinned_source(source) for source in config.sources))


def pinned_source(source: SourceConfig) -> SourceConfig:
    """Return the source with its revision filled in, if it comes from the hub."""
    if source.hub is None or source.revision is not None or place_of(source) is not None:
        return source
    return source.revise(revision=newest_commit(source.hub, "dataset"))


def files_at(path: str, place: str, digests: Digests) -> Files:
    """Return the artifact of a file, folder or glob; `place` is its key in the recipe."""
    found = dict(listed(Path(path)))
    if not found:
        raise StageError(f"{place}: {missing(Path(path))}")
    return linked_files(found, digests)


def linked_files(found: dict[str, Path], digests: Digests) -> Files:
    """Return the artifact of files under their names."""
    found = dict(sorted(found.items()))
    digest = combined((name, file.stat().st_size, digests.of(file)) for name, file in found.items())
    folder = home() / "sources" / digest[:16]
    link(found, folder)
    return Files(path=folder, digest=digest)


def listed(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name below the named place, file) of what a path stands for."""
    if path.is_file():
        yield path.name, path.resolve()
    elif path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file())
        names = ((file.relative_to(path), file) for file in inside)
        yield from ((name.as_posix(), file.resolve()) for name, file in names if is_data(name))
    elif any(c in str(path) for c in MAGIC):
        root = fixed_part(path)
        for text in glob.glob(str(path), recursive=True):  # noqa: PTH207 - Path.glob wants a relative pattern
            file = Path(text)
            if file.is_file():
                yield file.relative_to(root).as_posix(), file.resolve()


def is_data(name: Path) -> bool:
    """Whether a file of a folder is data: not hidden, and no README or licence."""
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and not name.name.lower().startswith(NOT_DATA)


def fixed_part(pattern: Path) -> Path:
    """Return the folders of a glob before its first wildcard."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if any(c in part for c in MAGIC))
    return Path(*parts[:first])


def missing(path: Path) -> str:
    """Return what is wrong with a path that stands for no file, and the nearest name that exists."""
    if path.is_dir():
        return f"the folder {path} holds no data files (hidden files, READMEs and licences do not count)"
    if any(c in str(path) for c in MAGIC):
        return f"no file matches {path}: check the pattern"
    broken = next(p for p in (path, *path.parents) if p.parent.is_dir())
    near = difflib.get_close_matches(broken.name, [p.name for p in broken.parent.iterdir()], n=1)
    hint = f"did you mean {broken.parent / near[0]}?" if near else f"{broken.parent} has no {broken.name!r}"
    return f"{path} does not exist: {hint}"


def link(files: dict[str, Path], folder: Path) -> None:
    """Make `folder` hold a link to each file under its name, and nothing else."""
    if {name: (folder / name).resolve() for name in files} == files and count(folder) == len(files):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for name, file in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(file)


def count(folder: Path) -> int:
    """Return how many files and links are below `folder`."""
    return sum(not path.is_dir() for path in folder.rglob("*"))
