"""Exact and near duplicates of a corpus of any size: signatures to disk while rows stream, sorted band by band after.

Near duplicates: MinHash over 5-word shingles (Broder 1997) by rensa, 128 permutations, locality-sensitive hashing in
16 bands of 8, each candidate checked by the share of equal signature bytes. In memory at once are one 64-bit hash and
its order per row (24 bytes), whatever the length of the texts.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rensa

from containers.data.spool import Tick
from containers.data.words import Words, mixed, runs

PERMUTATIONS, BANDS = 128, 16
SHINGLE_WORDS = 5
MIN_WORDS = 20
"""Shorter texts have too few shingles to compare; for them only exact copies are duplicates."""
SEED = 20
CHUNK = 1 << 16

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


class Signatures:
    """Columns of numbers on disk, one file each, appended batch by batch."""

    def __init__(self, folder: Path, tick: Tick) -> None:
        """Begin empty in `folder`; `tick` hears how far the search for near copies is."""
        self.tick = tick
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"band-{band:02d}" for band in range(BANDS)]
        self.paths = {name: folder / name for name in ("exact", "rows", "bytes", *names)}
        self.files = {name: path.open("wb") for name, path in self.paths.items()}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close every file."""
        for file in self.files.values():
            file.close()

    def add_exact(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Append one content hash per row."""
        hashes.tofile(self.files["exact"])

    def add_near(self, rows: Indices, words: Words) -> None:
        """Append the signatures of texts that are long enough; `rows[i]` is the row of text i, -1 where it has none."""
        shingles, offsets = runs(words, SHINGLE_WORDS)
        wanted = (np.diff(words.offsets) >= MIN_WORDS) & (rows >= 0)
        if not wanted.any():
            return
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            shingles, offsets.astype(np.uint64), PERMUTATIONS, SEED
        )
        signature = np.array(matrix.to_rows(), dtype=np.uint64)[wanted]
        rows[wanted].tofile(self.files["rows"])
        (signature & np.uint64(0xFF)).astype(np.uint8).tofile(self.files["bytes"])
        for band, part in enumerate(np.split(signature, BANDS, axis=1)):
            banded(part).tofile(self.files[f"band-{band:02d}"])

    def column(self, name: str, kind: Any) -> npt.NDArray[Any]:
        """Return a whole column."""
        return np.fromfile(self.paths[name], dtype=kind)


def banded(part: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return one hash per row of a band's signature values."""
    found = np.zeros(len(part), dtype=np.uint64)
    for column in part.T:
        found = mixed(found * np.uint64(31) + column + np.uint64(1))
    return found


def exact_copies(hashes: npt.NDArray[np.uint64]) -> Mask:
    """Return which rows repeat an earlier row."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    copies = np.zeros(hashes.size, dtype=bool)
    copies[order[1:]] = ordered[1:] == ordered[:-1]
    return copies


def near_copies(signatures: Signatures, similarity: float, total: int, gone: Mask) -> Mask:
    """Return which of `total` rows resemble an earlier row, those already `gone` left out of account."""
    rows = signatures.column("rows", np.int64)
    copies = np.zeros(total, dtype=bool)
    alive = ~gone[rows]
    with signatures.paths["bytes"].open("rb") as stream:
        for band in range(BANDS):
            signatures.tick(band, BANDS, "bands compared")
            hashes = signatures.column(f"band-{band:02d}", np.uint64)
            for earlier, later in candidates(hashes, np.flatnonzero(alive)):
                unseen = ~copies[rows[later]]
                alike = resemblance(stream, earlier[unseen], later[unseen]) >= similarity
                copies[rows[later[unseen][alike]]] = True
    return copies


def candidates(hashes: npt.NDArray[np.uint64], among: Indices) -> Any:
    """Yield (earlier, later) arrays of signatures that share a band: each with the first, and with the one before."""
    order = among[np.argsort(hashes[among], kind="stable")]
    ordered = hashes[order]
    same = np.concatenate([[False], ordered[1:] == ordered[:-1]])
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(order.size)))
    later = np.flatnonzero(same)
    for begin in range(0, later.size, CHUNK):
        part = later[begin : begin + CHUNK]
        yield order[starts[part]], order[part]
        yield order[part - 1], order[part]


def resemblance(stream: Any, first: Indices, later: Indices) -> npt.NDArray[np.float64]:
    """Return the estimated Jaccard similarity of pairs, from one byte per permutation (Li and Koenig 2010)."""
    equal = (signature_bytes(stream, first) == signature_bytes(stream, later)).mean(axis=1)
    return np.asarray((equal - 1 / 256) / (1 - 1 / 256))


def signature_bytes(stream: Any, indices: Indices) -> npt.NDArray[np.uint8]:
    """Return the signature bytes of rows of the file, read one by one in ascending order."""
    found = np.empty((indices.size, PERMUTATIONS), dtype=np.uint8)
    for place in np.argsort(indices, kind="stable"):
        stream.seek(int(indices[place]) * PERMUTATIONS)
        found[place] = np.frombuffer(stream.read(PERMUTATIONS), dtype=np.uint8)
    return found
