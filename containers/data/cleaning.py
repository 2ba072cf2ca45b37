"""Clean rows batch by batch: personal data, quality, contamination, and the hashes by which duplicates are found."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from containers.contract import Role
from containers.data.contamination import HeldOut
from containers.data.contract import DataConfig
from containers.data.duplicates import Mask, Signatures
from containers.data.fitting import Row, question_of, texts_of
from containers.data.privacy import scrubbed, spans_in
from containers.data.quality import faults
from containers.data.reading import Read
from containers.data.splits import split_of
from containers.data.spool import MARKS, SPLITS, TEST, Spool, hash_of
from containers.data.words import Words, words_of

BATCH_CHARACTERS = 1 << 20
BATCH_ROWS = 4096


@dataclass
class Census:
    """What cleaning did, for the card."""

    read: int = 0
    quality: Counter[str] = field(default_factory=Counter)
    contaminated: int = 0
    pii: Counter[str] = field(default_factory=Counter)
    rows_with_pii: int = 0
    characters: int = 0


class Cleaner:
    """Takes rows one by one, cleans them in batches, and spools those that may stay."""

    def __init__(self, role: Role, config: DataConfig, held_out: HeldOut, spool: Spool, signatures: Signatures) -> None:
        """Write into `spool` and `signatures`."""
        self.role = role
        self.config = config
        self.held_out = held_out
        self.spool = spool
        self.signatures = signatures
        self.census = Census()
        self.batch: list[Read] = []
        self.characters = 0

    def add(self, read: Read) -> None:
        """Take one row."""
        self.census.read += 1
        if self.config.pii != "off":
            self.guard(read.row)
        self.batch.append(read)
        size = sum(map(len, texts_of(read.row)))
        self.characters += size
        self.census.characters += size
        if self.characters >= BATCH_CHARACTERS or len(self.batch) >= BATCH_ROWS:
            self.flush()

    def guard(self, row: Row) -> None:
        """Count a row's personal data, or replace it."""
        before = self.census.pii.total()
        scrub = self.config.pii == "scrub"
        change = (lambda text: scrubbed(text, self.census.pii)) if scrub else self.flagged
        if "text" in row:
            row["text"] = change(row["text"])
        for name in ("prompt", "chosen", "rejected", "messages"):
            for message in row.get(name, ()):
                message["content"] = change(message["content"])
        self.census.rows_with_pii += self.census.pii.total() > before

    def flagged(self, text: str) -> str:
        """Count the personal data in `text` and return it as it is."""
        self.census.pii.update(kind for _, _, kind in spans_in(text))
        return text

    def flush(self) -> None:
        """Clean the held batch and append what may stay."""
        if not self.batch:
            return
        reads, self.batch, self.characters = self.batch, [], 0
        texts = ["\n".join(texts_of(read.row)) for read in reads]
        words = words_of(texts)
        stay = np.ones(len(reads), dtype=bool)
        if self.role == "corpus":
            names = faults(texts, words, self.config.quality)
            bad = [bool(name) and not read.builtin for name, read in zip(names, reads, strict=True)]
            self.census.quality.update(name for name, drop in zip(names, bad, strict=True) if drop)
            stay &= ~np.array(bad)
        marks = np.array([self.mark(read, text) for read, text in zip(reads, texts, strict=True)], dtype=MARKS)
        if self.held_out:
            leaked = self.held_out.leaked([read.row for read in reads], words) & (marks["split"] != TEST) & stay
            self.census.contaminated += int(leaked.sum())
            stay &= ~leaked
        if not stay.any():
            return
        chosen = np.flatnonzero(stay)
        if self.config.near_duplicate_similarity < 1:
            self.sign(words, stay, np.array([read.builtin or read.ranked for read in reads]))
        self.signatures.add_exact(marks["content"][chosen])
        self.spool.add([self.finished(reads[i].row, int(marks["content"][i])) for i in chosen], marks[chosen])

    def sign(self, words: Words, stay: Mask, alike: Mask) -> None:
        """Append the signatures of the rows that stay, but for those `alike` on purpose: of worlds, of one ranking."""
        rows = self.spool.total + np.cumsum(stay) - 1
        self.signatures.add_near(np.where(stay & ~alike, rows, -1), words)

    def mark(self, read: Read, text: str) -> tuple[int, int, int, int, int, bool]:
        """Return what the spool keeps beside a row."""
        content = hash_of(text)
        asked = content if self.role == "corpus" else hash_of(" ".join(question_of(read.row).casefold().split()))
        group = hash_of(f"{self.config.seed} {asked}")
        decided = read.row.pop("split", None)
        split = SPLITS.index(decided) if decided else split_of(group, *self.shares)
        return content, group, len(text), split, read.source, read.builtin

    @property
    def shares(self) -> tuple[float, float]:
        """Shares of validation and test."""
        return self.config.validation_share, self.config.test_share

    def finished(self, row: Row, content: int) -> Row:
        """Return a row with its id: the hash of its content, unless it has one."""
        return {**row, "id": row.get("id") or f"{content:016x}"}
