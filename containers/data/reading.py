"""Read one source: its files, its hub dataset or its builtin world, as rows of the role and rejects."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

from containers.contract import Role, StageError
from containers.data.contract import DataConfig
from containers.data.conversations import grouped
from containers.data.documents import cleaned_wikitext
from containers.data.fitting import Fitter, Row
from containers.data.kinds import records_of
from containers.data.rankings import RANKED, Rankings
from containers.data.recognition import LOOKED_AT, renamed, shape_of
from containers.data.records import Bad, Record, Reject
from containers.data.shapes import CONVERTERS, Context
from containers.data.source import Kind, SourceConfig
from containers.data.thumbs import SHAPE, Thumbs, lessons


@dataclass
class Recognised:
    """One file (or hub dataset, or world): what it was taken for, and what came of it."""

    source: int
    file: str
    kind: str
    shape: str
    rows: int = 0
    rejects: int = 0


class Read(NamedTuple):
    """One row, and where it comes from."""

    row: Row
    source: int
    builtin: bool = False
    ranked: bool = False
    """One of several pairs of a ranking, which share texts by nature."""


class Reader:
    """Reads the sources of one role, in order."""

    def __init__(self, role: Role, config: DataConfig, work: Path, say: Callable[[str], None]) -> None:
        """`work` holds the hub's cache; `say` hears what each file was recognised as."""
        self.role = role
        self.config = config
        self.work = work
        self.say = say
        self.fitter = Fitter(role)
        self.rankings = Rankings()
        self.thumbs = Thumbs()
        self.recognised: list[Recognised] = []
        self.finished_bytes = 0
        self.position: Callable[[], int] = lambda: 0

    def read(self, index: int, source: SourceConfig, folder: Path | None) -> Iterator[Read | Reject]:
        """Yield the rows and rejects of one source, at most `max_rows` rows; raises StageError."""
        if source.builtin is not None:
            found = self.from_world(index, source.builtin)
        elif source.hub is not None:
            found = self.from_hub(index, source, folder)
        else:
            found = chain.from_iterable(self.from_file(index, source, *file) for file in files_in_order(index, folder))
        left = source.max_rows
        for item in found:
            yield item
            if left is not None and isinstance(item, Read):
                left -= 1
                if not left:
                    return

    def ranked(self) -> Iterator[Read | Reject]:
        """Yield the pairs of all rankings and thumbs, once every source is read: several may judge one prompt."""
        for index, record in chain(self.rankings.pairs(), self.thumbs.pairs(self.fitter.counts)):
            made = self.converted(record, "preference", Context(self.config.sources[index].roles), clean=False)
            if not isinstance(made, Reject):
                made["split"] = record.values.get("split")
            yield made if isinstance(made, Reject) else Read(made, index, ranked=True)

    def from_world(self, index: int, world: str) -> Iterator[Read]:
        """Yield the rows that a builtin world generates from the seed."""
        from containers.data.worlds import generate

        seen = self.recognise(Recognised(index, f"builtin:{world}", "generated", world))
        for row in generate(world, self.role, self.config.seed):
            seen.rows += 1
            yield Read(row, index, builtin=True)

    def from_hub(self, index: int, source: SourceConfig, folder: Path | None) -> Iterator[Read | Reject]:
        """Yield the rows of a hub dataset, streamed."""
        from containers.data.hub import streamed

        name = f"hub:{Path(str(source.hub)).name if folder else source.hub}"
        yield from self.fitted(index, source, name, "hub", streamed(source, name, folder, self.work))

    def from_file(self, index: int, source: SourceConfig, name: str, file: Path) -> Iterator[Read | Reject]:
        """Yield the rows of one file."""
        forced: Kind | None = source.format if source.format in get_args(Kind) else None  # type: ignore[assignment]
        kind, records, self.position = records_of(file, name, forced)
        yield from self.fitted(index, source, name, kind, records)
        self.finished_bytes += file.stat().st_size
        self.position = lambda: 0

    def fitted(
        self, index: int, source: SourceConfig, name: str, kind: str, records: Iterable[Record | Reject]
    ) -> Iterator[Read | Reject]:
        """Recognise the shape of a stream of records by the first ones, then convert each."""
        mapped = (with_columns(item, source) for item in records)
        mapped = grouped(mapped, source.conversation) if source.conversation else mapped
        first = list(islice(mapped, LOOKED_AT))
        known = [item for item in first if isinstance(item, Record)]
        if not known:
            rejects = [item for item in first if isinstance(item, Reject)]
            said = f"{rejects[0].file}:{rejects[0].line}: {rejects[0].reason}" if rejects else f"{name}:1: no rows"
            raise StageError(f"{said}: nothing in it can be read: mend the file, or force its `format`")
        shape = shape_of(self.role, known, source)
        seen = self.recognise(Recognised(index, name, kind, shape))
        if shape in RANKED:
            for reject in self.rankings.gather(index, shape, chain(first, mapped), source):
                seen.rejects += 1
                yield reject
            seen.rows = self.rankings.taken[index, name]
            return
        if shape == SHAPE and self.role == "preferences":
            for item in self.thumbs.gather(index, chain(first, mapped), source):
                seen.rejects += 1
                yield item
            seen.rows = self.thumbs.taken[index, name]
            return
        context = Context(source.roles, keep_marks=self.config.calculator_marks == "keep")
        clean = kind == "wikitext" and self.config.wikitext == "clean"
        items = lessons(chain(first, mapped), self.fitter.counts) if shape == SHAPE else chain(first, mapped)
        for item in items:
            made = item if isinstance(item, Reject) else self.converted(item, shape, context, clean=clean)
            seen.rejects += isinstance(made, Reject)
            seen.rows += not isinstance(made, Reject)
            yield made if isinstance(made, Reject) else Read(made, index)

    def converted(self, record: Record, shape: Any, context: Context, *, clean: bool) -> Row | Reject:
        """Return the row that a record makes, or why it makes none."""
        try:
            meaning = CONVERTERS[shape](record.values, context)
            if clean and meaning.text is not None:
                meaning.text = cleaned_wikitext(meaning.text)
            row = self.fitter.fit(meaning)
        except Bad as bad:
            return Reject(record.file, record.line, str(bad))
        task = record.values.get("task")
        row["source"] = record.file
        row["task"] = task if isinstance(task, str) and task.isprintable() else Path(record.file).name.split(".")[0]
        return row

    def recognise(self, seen: Recognised) -> Recognised:
        """Keep and say what a file was recognised as."""
        self.recognised.append(seen)
        self.say(f"{seen.file}: recognised as {seen.kind}, {seen.shape}")
        return seen

    @property
    def bytes_read(self) -> int:
        """Bytes on disk read so far."""
        return self.finished_bytes + self.position()


def with_columns(item: Record | Reject, source: SourceConfig) -> Record | Reject:
    """Return a record under our column names."""
    return item._replace(values=renamed(item.values, source.columns)) if isinstance(item, Record) else item


def files_in_order(index: int, folder: Path | None) -> list[tuple[str, Path]]:
    """Return (name below the folder, file) of a source's files, sorted; raises StageError when there is none."""
    if folder is None:
        raise StageError(f"sources[{index}]: no files were given to the stage for this path")
    files = sorted((f.relative_to(folder).as_posix(), f) for f in folder.rglob("*") if f.is_file())
    if not files:
        raise StageError(f"sources[{index}]: the folder holds no file: check the path in the recipe")
    return files
