"""Words of many texts at once as 64-bit hashes, in numpy: what near duplicates and contamination are found by.

A text's words are its runs of letters and digits, lower-cased: line breaks, punctuation and case do not count. The
hash of a word is a polynomial over its UTF-8 bytes modulo 2^64, taken from prefix sums: no word becomes an object.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]

BASE = 0x9E3779B97F4A7C15
SPACE = 32
PIECE = 1 << 20
TABLE = bytes(
    byte if byte >= 128 or chr(byte).isdigit() else ord(chr(byte).lower()) if chr(byte).isalpha() else SPACE
    for byte in range(256)
)
NOT_WORD = re.compile(r"[^\w]+|_+")


class Words(NamedTuple):
    """Words of a batch of texts."""

    hashes: Hashes
    """One per word, all texts in a row."""
    lengths: Offsets
    """Bytes of each word."""
    offsets: Offsets
    """Where each text's words begin; one more at the end."""


def words_of(texts: list[str]) -> Words:
    """Return the words of `texts`."""
    packed = [plain_bytes(text) for text in texts]
    ends = np.cumsum([len(p) + 1 for p in packed], dtype=np.int64)
    found = [hashed(begin, piece) for begin, piece in pieces(b" ".join([*packed, b""]))]
    empty = np.zeros(0, dtype=np.int64)
    hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *(h for h, _, _ in found)])
    first = np.concatenate([empty, *(f for _, f, _ in found)])
    lengths = np.concatenate([empty, *(n for _, _, n in found)])
    return Words(hashes, lengths, np.concatenate([[0], np.searchsorted(first, ends)]))


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (place, bytes) of parts of at most PIECE bytes, cut between words."""
    begin = 0
    while begin < len(data):
        end = min(begin + PIECE, len(data))
        if end < len(data):
            end = max(data.rfind(b" ", begin, end) + 1, 0) or end
        yield begin, data[begin:end]
        begin = end


def hashed(place: int, piece: bytes) -> tuple[Hashes, Offsets, Offsets]:
    """Return (hash, place in the whole, length) of each word of a piece."""
    data = np.frombuffer(piece, dtype=np.uint8)
    edges = np.flatnonzero(np.diff(data != SPACE, prepend=False, append=False))
    first, last = edges[0::2], edges[1::2]
    power, inverse = powers(PIECE)
    sums = np.zeros(data.size + 1, dtype=np.uint64)
    np.cumsum((data.astype(np.uint64) + np.uint64(1)) * power[: data.size], out=sums[1:])
    return mixed((sums[last] - sums[first]) * inverse[first]), first + place, last - first


def plain_bytes(text: str) -> bytes:
    """Return the text's bytes, lower-cased, with a space for whatever is no letter or digit."""
    if text.isascii():
        return text.encode().translate(TABLE)
    return NOT_WORD.sub(" ", text.casefold()).encode()


@lru_cache(maxsize=1)
def powers(size: int) -> tuple[Hashes, Hashes]:
    """Return BASE^i and BASE^-i modulo 2^64 for i below `size` (a power of two)."""
    inverse = pow(BASE, -1, 1 << 64)
    return geometric(BASE, size), geometric(inverse, size)


def geometric(base: int, size: int) -> Hashes:
    """Return base^i modulo 2^64 for i below `size`, by doubling."""
    found = np.ones(1, dtype=np.uint64)
    while found.size < size:
        found = np.concatenate([found, found * np.uint64(pow(base, found.size, 1 << 64))])
    return found


def mixed(values: Hashes) -> Hashes:
    """Return well-spread hashes (the finalizer of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def runs(words: Words, length: int) -> tuple[Hashes, Offsets]:
    """Return (hash of each run of `length` words within one text, offsets per text)."""
    total = words.hashes.size
    counts = np.maximum(np.diff(words.offsets) - (length - 1), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    if total < length:
        return np.zeros(0, dtype=np.uint64), offsets
    size = total - length + 1
    rolled = np.zeros(size, dtype=np.uint64)
    for shift in range(length):
        rolled *= np.uint64(BASE)
        rolled += words.hashes[shift : shift + size]
    starts = np.repeat(words.offsets[:-1] - offsets[:-1], counts) + np.arange(offsets[-1])
    return mixed(rolled[starts]), offsets
