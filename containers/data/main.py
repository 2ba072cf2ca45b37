"""Read, clean, deduplicate, decontaminate and split one role's sources, in bounded memory.

Two passes. The first streams every row through cleaning to a spool on disk, with a few numbers about each beside it.
Then the numbers, sorted, tell which rows are duplicates; the second pass writes what is left as parquet shards.
Run by hand: python -m containers.entrypoint FOLDER
"""

import errno
import json
import re
import time
from collections import Counter
from itertools import chain

import numpy as np

from containers.contract import Dataset, StageError
from containers.data import shards
from containers.data.card import Card, write_card
from containers.data.cleaning import Cleaner
from containers.data.contamination import HeldOut
from containers.data.contract import DataConfig, DataInputs, DataOutputs
from containers.data.duplicates import Mask, Signatures, exact_copies, near_copies
from containers.data.reading import Reader
from containers.data.records import Reject
from containers.data.splits import balanced, tails_of
from containers.data.spool import Spool
from containers.out import Out

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROGRESS_SECONDS = 2.0
QUOTED = re.compile(r"(?<=')[^']*(?=')|(?<=byte )\d+")


def run(config: DataConfig, inputs: DataInputs, out: Out) -> DataOutputs:
    """Make the dataset of one role; raises StageError where a person's data or disk is at fault."""
    try:
        return prepare(config, inputs, out)
    except OSError as error:
        if error.errno in DISK_FULL or "Errno 27" in str(error) or "Errno 28" in str(error):
            raise StageError(
                f"no disk space left for {out.folder.name}: {error}. This stage needs about twice the unpacked size "
                "of its sources; free some, or set SLIPWAY_HOME to a larger disk"
            ) from error
        raise


def prepare(config: DataConfig, inputs: DataInputs, out: Out) -> DataOutputs:
    """Stream the sources to the spool, find duplicates, write shards and card."""
    if not config.sources:
        raise StageError(f"data.{inputs.role} names no sources: add one with path, hub or builtin")
    held_out = HeldOut.of(inputs.held_out, config.decontaminate_words)
    reader = Reader(inputs.role, config, out.work, out.say)
    tick = Paced(out)
    with (
        Signatures(out.work / "signatures", tick) as signatures,
        Spool(out.work / "spool", inputs.role, tick) as spool,
    ):
        cleaner = Cleaner(inputs.role, config, held_out, spool, signatures)
        rejects = stream(reader, cleaner, inputs, tick)
    refuse_the_rejected(rejects, cleaner.census.read, config, inputs.role)
    marks = spool.read_marks()
    exact, near = duplicates(signatures, config, len(marks))
    kept = ~(exact | near)
    census = cleaner.census
    steps = {
        "read": census.read + rejects.total(),
        "rejected": rejects.total(),
        "dropped_by_quality": census.quality.total(),
        "contaminated": census.contaminated,
        "exact_duplicates": int(exact.sum()),
        "near_duplicates": int(near.sum()),
        "kept": int(kept.sum()),
    }
    if not kept.any():
        raise StageError(
            f"every row of data.{inputs.role} was dropped ({said(steps)}): loosen the filters, or give other data"
        )
    marks["split"] = balanced(marks, kept, config, inputs.role)
    folder = out.artifact("dataset")
    copies = shards.copies_of(marks, kept, [source.weight for source in config.sources])
    tails = tails_of(marks, kept, config) if inputs.role == "corpus" else {}
    rows = shards.write(spool, folder, marks["split"], copies, tails)
    out.say(f"data.{inputs.role}: {said(steps)}; written: {said(rows)}")
    out.record(**steps, **{f"rows_{split}": count for split, count in rows.items()})
    write_card(Card(inputs.role, config, reader, census, steps, rejects, rows, tick), folder, out)
    return DataOutputs(dataset=Dataset.of(folder, role=inputs.role, rows=rows))


class Paced:
    """Passes progress on, at most every PROGRESS_SECONDS."""

    def __init__(self, out: Out) -> None:
        """Speak through `out`."""
        self.out = out
        self.last = time.monotonic()

    def __call__(self, done: float, total: float, unit: str) -> None:
        """Tell of progress if it is time to."""
        if time.monotonic() - self.last > PROGRESS_SECONDS:
            self.last = time.monotonic()
            self.out.progress(done, max(done, total), unit)


def stream(reader: Reader, cleaner: Cleaner, inputs: DataInputs, tick: Paced) -> Counter[str]:
    """Send every row through the cleaner and every reject to rejects.jsonl; return rejects by reason."""
    reasons: Counter[str] = Counter()
    folders = {int(index): files.path for index, files in inputs.files.items()}
    total = sum(file.stat().st_size for folder in folders.values() for file in folder.rglob("*") if file.is_file())
    with (tick.out.card / "rejects.jsonl").open("w", encoding="utf-8") as sheet:
        found = (reader.read(i, source, folders.get(i)) for i, source in enumerate(reader.config.sources))
        for item in chain(chain.from_iterable(found), reader.ranked()):
            if isinstance(item, Reject):
                sheet.write(json.dumps(item._asdict(), ensure_ascii=False) + "\n")
                reasons[QUOTED.sub("...", item.reason)] += 1
            else:
                cleaner.add(item)
            tick(reader.bytes_read / 1e6, total / 1e6, "MB")
    cleaner.flush()
    return reasons


def refuse_the_rejected(rejects: Counter[str], rows: int, config: DataConfig, role: str) -> None:
    """Raise StageError when no row is left, or more than the recipe's share is bad."""
    bad = rejects.total()
    reasons = "; ".join(f"{reason} ({count})" for reason, count in rejects.most_common(3))
    if not rows:
        raise StageError(f"all {bad} rows of data.{role} were rejected: {reasons or 'nothing was read'}")
    share = bad / (bad + rows)
    if share > config.max_rejected_share:
        raise StageError(
            f"{bad} of {bad + rows} rows of data.{role} were rejected ({share:.1%}, the recipe allows "
            f"{config.max_rejected_share:.1%}): {reasons}. See rejects.jsonl in the card; mend the rows, "
            "map columns or roles, or raise max_rejected_share"
        )


def duplicates(signatures: Signatures, config: DataConfig, total: int) -> tuple[Mask, Mask]:
    """Return which spooled rows are exact and which are near copies of an earlier one."""
    exact = exact_copies(signatures.column("exact", np.uint64))
    if config.near_duplicate_similarity == 1:
        return exact, np.zeros(total, dtype=bool)
    return exact, near_copies(signatures, config.near_duplicate_similarity, total, exact)


def said(figures: dict[str, int]) -> str:
    """Return counts as one line."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in figures.items())
