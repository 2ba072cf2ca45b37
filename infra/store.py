"""The artifact store: published stage folders, each under `<stage>-<first 12 hex of its fingerprint>`.

A folder is absent or complete: it is made ready in staging, flushed, and moved in by one rename. Beside its files lies
`index.json` (size, mtime, inode and sha256 of each), so that the cached check reads no bytes.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.contract import Artifact, Request, Result, Stage, artifacts_in, combined, digest_of_file, files_in
from containers.entrypoint import located, stage_named
from containers.out import write_last

INDEX = "index.json"
ADDRESS_HEX = 12


class StoreError(Exception):
    """The store cannot do what was asked: what, where, and what to do."""


@dataclass(frozen=True)
class Published:
    """One stage run in the store."""

    folder: Path
    request: Request
    result: Result

    @property
    def address(self) -> str:
        """Its name in the store."""
        return self.folder.name

    def outputs(self, stage: Stage[Any, Any, Any]) -> Any:
        """Return the typed outputs, artifact paths absolute."""
        return stage.outputs.model_validate(located(self.result.outputs, self.folder))


class Store:
    """The published stage folders below one root."""

    def __init__(self, root: Path) -> None:
        """Use the store at `root`; it is made with the first publication."""
        self.root = root.absolute()

    def folder_of(self, stage: str, fingerprint: str) -> Path:
        """Return where the stage run with this fingerprint is, or would be."""
        return self.root / f"{stage}-{fingerprint[:ADDRESS_HEX]}"

    def find(self, stage: str, fingerprint: str) -> Published | None:
        """Return the published run if every file is as it was published, else None; bytes are not read.

        A folder whose files were touched or copied here is hashed once, and used if its bytes are right. One that
        is damaged is set aside as `<address>.damaged`, so that the stage is run again.
        """
        folder = self.folder_of(stage, fingerprint)
        if not (folder / INDEX).is_file():
            return None
        if stats_of(folder) != recorded_stats(folder):
            if damage_in(folder):
                aside = folder.with_suffix(".damaged")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                return None
            write_index(folder)
        found = self.load(folder.name)
        if found.result.fingerprint != fingerprint:
            raise StoreError(f"{folder} holds another fingerprint of the same first {ADDRESS_HEX} digits: move it away")
        return found

    def load(self, address: str) -> Published:
        """Return the run published at `address` (`store:` before it is allowed); raises StoreError."""
        folder = self.root / address.removeprefix("store:")
        if not (folder / INDEX).is_file():
            raise StoreError(f"the store has no {folder.name}: `slipway status` lists what it has ({self.root})")
        request = Request.model_validate_json((folder / "request.json").read_text(encoding="utf-8"))
        result = Result.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
        return Published(folder, request, result)

    def addresses(self) -> list[str]:
        """Return every published address, sorted."""
        folders = self.root.iterdir() if self.root.is_dir() else ()
        return sorted(f.name for f in folders if (f / INDEX).is_file() and not f.suffix)

    def publish(self, staged: Path) -> Published:
        """Move a finished stage folder into the store; it is there completely or not at all.

        Raises StoreError where outputs differ from result.json or lie outside, and where the disk is full.
        """
        result = Result.model_validate_json((staged / "result.json").read_text(encoding="utf-8"))
        target = self.folder_of(result.stage, result.fingerprint)
        try:
            refuse_links(staged / "outputs")
            listed = write_index(staged)
            refuse_other_bytes(staged, result, listed)
            flush(staged)
            self.root.mkdir(parents=True, exist_ok=True)
            if not (target / INDEX).is_file():
                shutil.rmtree(target, ignore_errors=True)
                staged.rename(target)
            sync_folder(self.root)
        except OSError as error:
            raise disk_error(error, staged) from error
        return self.load(target.name)

    def artifact(self, pin: str) -> Artifact:
        """Return the artifact that `store:<address>` or `store:<address>/<output>` names; raises StoreError.

        The output may be left out where the stage makes one artifact only.
        """
        address, _, output = pin.removeprefix("store:").partition("/")
        found = self.load(address)
        made = dict(artifacts_in(found.outputs(stage_named(found.result.stage))))
        if not output and len(made) == 1:
            return next(iter(made.values()))
        if output not in made:
            raise StoreError(f"{address} holds {', '.join(sorted(made))}: name one, as store:{address}/{min(made)}")
        return made[output]

    def verify(self, address: str) -> list[str]:
        """Hash every file of a published run; return what is wrong with it (nothing, when all is well)."""
        return damage_in(self.load(address).folder)

    def fetch(self, address: str, destination: Path) -> Path:
        """Copy the outputs of a published run to `destination`, verified; raises StoreError."""
        found = self.load(address)
        wrong = damage_in(found.folder)
        if wrong:
            raise StoreError(f"{found.address} is damaged: {'; '.join(wrong)}")
        try:
            shutil.copytree(found.folder / "outputs", destination, dirs_exist_ok=True)
        except OSError as error:
            raise disk_error(error, found.folder / "outputs", destination) from error
        return destination


def write_index(folder: Path) -> dict[str, list[Any]]:
    """Write and return index.json: path -> [size, mtime_ns, inode, sha256] of every file that is published."""
    listed = {name: [*stat, digest_of_file(folder / name)] for name, stat in stats_of(folder).items()}
    write_last(folder / INDEX, json.dumps(listed, sort_keys=True))
    return listed


def read_index(folder: Path) -> dict[str, list[Any]]:
    """Return index.json."""
    listed: dict[str, list[Any]] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return listed


def stats_of(folder: Path) -> dict[str, list[int]]:
    """Return path -> [size, mtime_ns, inode] of every file of a published folder."""
    return {file.relative_to(folder).as_posix(): stat_of(file) for file in published_files(folder)}


def recorded_stats(folder: Path) -> dict[str, list[int]]:
    """Return what `stats_of` was at publication."""
    return {name: entry[:3] for name, entry in read_index(folder).items()}


def stat_of(file: Path) -> list[int]:
    """Return [size, mtime_ns, inode]."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def published_files(folder: Path) -> Iterator[Path]:
    """Yield the files that are published: the request, the result and all outputs."""
    yield from (file for file in (folder / "request.json", folder / "result.json") if file.is_file())
    yield from files_in(folder / "outputs")


def damage_in(folder: Path) -> list[str]:
    """Return one line for each file that is missing, added or changed since publication, by its bytes."""
    listed = read_index(folder)
    present = {f.relative_to(folder).as_posix() for f in published_files(folder)}
    wrong = [f"{name} is missing" for name in sorted(listed.keys() - present)]
    wrong += [f"{name} was added" for name in sorted(present - listed.keys())]
    changed = (name for name in sorted(listed.keys() & present) if digest_of_file(folder / name) != listed[name][3])
    return wrong + [f"{name} was changed" for name in changed]


def refuse_links(outputs: Path) -> None:
    """Raise StoreError on a symbolic link: what it points to is not in the store."""
    links = [path for path in sorted(outputs.rglob("*")) if path.is_symlink()]
    if links:
        raise StoreError(f"{links[0]} is a link to {links[0].readlink()}: outputs must be files of their own")


def refuse_other_bytes(staged: Path, result: Result, listed: dict[str, list[Any]]) -> None:
    """Raise StoreError where an artifact's digest in the result is not that of the files on disk."""
    for path, digest in artifacts_of(result.outputs):
        if ".." in Path(path).parts or not path.startswith("outputs/"):
            raise StoreError(f"{result.stage} returned {path}, which is not below outputs/")
        files = [(n, e) for n, e in listed.items() if n == path or n.startswith(f"{path}/")]
        actual = combined((n.removeprefix(path).removeprefix("/"), e[0], e[3]) for n, e in files)
        if not files or actual != digest:
            raise StoreError(
                f"{staged / path} is not what {result.stage} said it made: it was written to after it was hashed"
            )


def artifacts_of(values: Any) -> Iterator[tuple[str, str]]:
    """Yield (relative path, digest) of every artifact in a result's outputs."""
    if isinstance(values, dict):
        if "path" in values and "digest" in values:
            yield values["path"], values["digest"]
            return
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from artifacts_of(value)


def flush(folder: Path) -> None:
    """Have every file and folder below `folder` on the disk itself."""
    for path in (folder, *sorted(folder.rglob("*"))):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file() and not path.is_symlink():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Have a folder's list of names on the disk itself."""
    opened = os.open(folder, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)


def disk_error(error: OSError, source: Path, destination: Path | None = None) -> Exception:
    """Return what to raise for an OSError: a full disk is said as one, with path and bytes."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    place = destination or source
    needed = sum(f.stat().st_size for f in files_in(source))
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    return StoreError(
        f"no space left on the disk of {place}: {needed:,} bytes needed, {free:,} free; "
        "`slipway prune` frees what no run needs, SLIPWAY_HOME moves the store to another disk"
    )
