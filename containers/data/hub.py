"""Rows of a dataset on the hub, streamed by `datasets.load_dataset`; a folder goes through the same loader."""

from collections.abc import Iterator
from pathlib import Path

from containers.contract import StageError
from containers.data.records import Record
from containers.data.source import SourceConfig


def streamed(source: SourceConfig, label: str, folder: Path | None, work: Path) -> Iterator[Record]:
    """Yield the rows of `source.hub` at its pinned revision, or of `folder`, called `label`; raises StageError."""
    from datasets import load_dataset

    try:
        rows = load_dataset(
            str(folder or source.hub),
            name=source.subset,
            split=source.hub_split,
            revision=source.revision,
            streaming=True,
            cache_dir=str(work / "hub"),
        )
        for number, values in enumerate(rows, start=1):
            yield Record(label, number, dict(values))
    except (OSError, ValueError, RuntimeError) as error:
        raise StageError(
            f"hub dataset {source.hub!r} (revision {source.revision or 'newest'}) cannot be read: "
            f"{type(error).__name__}: {str(error)[:300]}: check the name, the network and HF_TOKEN"
        ) from error
