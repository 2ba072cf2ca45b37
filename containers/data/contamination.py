"""Keep what the test asks out of what training reads: runs of words that a row shares with a held-out row.

The runs are taken over normalised words (`words.py`), so that re-wrapped lines, case and punctuation hide nothing. A
run that stands in several held-out rows is a phrase of the template, not a leak, and does not count (as in Brown et al.
2020, appendix C). Held-out questions shorter than a run count only when a training question equals one whole.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

from containers.contract import Dataset
from containers.data.fitting import Row, question_of
from containers.data.words import Hashes, Words, mixed, runs, words_of
from containers.formats import rows_of

MAX_ROWS_OF_A_PHRASE = 3
SIEVE_BITS = 22


class HeldOut:
    """Hashes of the word runs, and of the short questions, of the held-out rows."""

    def __init__(self, length: int, phrases: Hashes, questions: Hashes) -> None:
        """Take runs of `length` words and whole short questions, both sorted."""
        self.length = length
        self.phrases = phrases
        self.questions = questions
        self.sieve = np.zeros(1 << SIEVE_BITS, dtype=bool)
        self.sieve[phrases >> np.uint64(64 - SIEVE_BITS)] = True

    @classmethod
    def of(cls, datasets: tuple[Dataset, ...], length: int) -> Self:
        """Read the test rows of `datasets`; a `length` of 0 holds nothing."""
        if not length:
            return cls(0, np.zeros(0, np.uint64), np.zeros(0, np.uint64))
        texts = [question_of(row) for dataset in datasets for row in rows_of(dataset, "test").to_pylist()]
        words = words_of(texts)
        found, offsets = runs(words, length)
        owners = np.repeat(np.arange(len(texts)), np.diff(offsets))
        pairs = np.unique(np.stack([found, owners.astype(np.uint64)], axis=1), axis=0) if found.size else found
        phrases, seen = np.unique(pairs[:, 0] if found.size else found, return_counts=True)
        short = np.diff(words.offsets) < length
        return cls(length, phrases[seen <= MAX_ROWS_OF_A_PHRASE], np.unique(whole(words)[short]))

    def __bool__(self) -> bool:
        """Tell whether there is anything to look for."""
        return bool(self.phrases.size or self.questions.size)

    def met_in(self, words: Words) -> npt.NDArray[np.bool_]:
        """Return which texts share a run with a held-out row."""
        found, offsets = runs(words, self.length)
        suspects = np.flatnonzero(self.sieve[found >> np.uint64(64 - SIEVE_BITS)])
        hits = suspects[np.isin(found[suspects], self.phrases)]
        met = np.zeros(len(offsets) - 1, dtype=bool)
        met[np.searchsorted(offsets, hits, side="right") - 1] = True
        return met

    def leaked(self, rows: list[Row], words: Words) -> npt.NDArray[np.bool_]:
        """Return which rows (of these words) share a run, or a whole short question, with a held-out row."""
        leaked = self.met_in(words)
        if self.questions.size and "text" not in rows[0]:
            leaked |= np.isin(whole(words_of([question_of(row) for row in rows])), self.questions)
        return leaked


def whole(words: Words) -> Hashes:
    """Return one hash per text: of all its words and their order."""
    sizes = np.diff(words.offsets)
    place = np.arange(words.hashes.size) - np.repeat(words.offsets[:-1], sizes)
    terms = mixed(words.hashes + place.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return mixed(sums[words.offsets[1:]] - sums[words.offsets[:-1]])
