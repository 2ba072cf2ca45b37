"""Documents packed into rows of equal length, so that little is padded and no short document is cut.

A document of n tokens gives n - 1 pairs (token, next token). Pieces of at most one row are placed best-fit decreasing
(Ding et al. 2024, "Fewer Truncations Improve Language Modeling"). Only documents longer than a row are cut, and
nothing is lost at a cut: the piece after it begins with the last target of the piece before.
"""

from dataclasses import dataclass

import numpy as np
import torch

from containers.pretrain.tokens import Documents

IGNORED = -100
"""The target of padding: no loss (torch's ignore_index)."""


@dataclass(frozen=True)
class Batch:
    """Tensors of shape (rows, sequence length), int64."""

    ids: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor
    """Which piece a token belongs to, from 1 on in each row; 0 for padding. Attention stays within a piece."""
    positions: torch.Tensor
    """Place within the piece: rotary positions begin at 0 in each."""

    def to(self, device: torch.device) -> "Batch":
        """Copy to the device, without waiting where the memory is pinned."""
        tensors = (self.ids, self.targets, self.segments, self.positions)
        if device.type == "cuda":
            tensors = tuple(t.pin_memory().to(device, non_blocking=True) for t in tensors)
        return Batch(*tensors)


class Rows:
    """The packed split: `take(numbers)` builds any rows of it."""

    def __init__(self, documents: Documents, length: int) -> None:
        """Cut long documents to `length` pairs, then place every piece in a row."""
        self.ids, self.length = documents.ids, length
        first, size = pieces_of(documents, length)
        row = best_fit(size, length)
        order = np.argsort(row, kind="stable")
        self.first, self.size = first[order], size[order]
        self.bounds = np.searchsorted(row[order], np.arange(row.max() + 2 if len(row) else 1))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def tokens(self) -> int:
        """Targets in all rows: what is trained on in one epoch."""
        return int(self.size.sum())

    @property
    def padding(self) -> float:
        """The share of all positions that is padding."""
        return 1 - self.tokens / (len(self) * self.length)

    def take(self, numbers: np.ndarray, rows: int) -> Batch:
        """Return rows `numbers` as a batch of `rows` rows (the rest, if any, is padding)."""
        ids, segments, positions = (np.zeros((rows, self.length), dtype=np.int64) for _ in range(3))
        targets = np.full((rows, self.length), IGNORED, dtype=np.int64)
        for place, number in enumerate(numbers):
            begin = 0
            for count, piece in enumerate(range(self.bounds[number], self.bounds[number + 1]), start=1):
                first, size = int(self.first[piece]), int(self.size[piece])
                there = slice(begin, begin + size)
                ids[place, there] = self.ids[first : first + size]
                targets[place, there] = self.ids[first + 1 : first + size + 1]
                segments[place, there] = count
                positions[place, there] = np.arange(size)
                begin += size
        return Batch(*(torch.from_numpy(values) for values in (ids, targets, segments, positions)))


class Order:
    """Which rows come in which step: every epoch shuffled anew from the seed, so that a step is enough to resume."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self._epoch, self._shuffled = -1, np.empty(0, dtype=np.int64)

    def numbers(self, step: int, batch_size: int) -> np.ndarray:
        """Return the row numbers of 0-based `step`; a batch may straddle two epochs."""
        return np.array([self._at(place) for place in range(step * batch_size, (step + 1) * batch_size)])

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, self.rows)
        if epoch != self._epoch:
            self._shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
            self._epoch = epoch
        return int(self._shuffled[within])


def pieces_of(documents: Documents, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (first token, pairs) of every piece of at most `length` pairs; documents of one token have none."""
    pairs = np.maximum(documents.lengths - 1, 0)
    count = -(-pairs // length)
    document = np.repeat(np.arange(len(pairs)), count)
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return documents.starts[document] + nth * length, np.minimum(length, pairs[document] - nth * length)


def best_fit(sizes: np.ndarray, length: int) -> np.ndarray:
    """Return the row of each piece: longest pieces first, each into the fullest row that still has room.

    Rows are kept by the room left in them; bit r of `rooms` says that some row has room r, so the best row is one
    shift away and the whole takes O(n) for a fixed length.
    """
    row_of = np.empty(len(sizes), dtype=np.int64)
    waiting: list[list[int]] = [[] for _ in range(length + 1)]
    rooms = rows = 0
    for piece in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[piece])
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = waiting[room].pop()
            if not waiting[room]:
                rooms &= ~(1 << room)
        else:
            room, row, rows = length, rows, rows + 1
        row_of[piece] = row
        if left := room - size:
            waiting[left].append(row)
            rooms |= 1 << left
    return row_of
