"""Which documents of a corpus are worth reading: a few known heuristics, each with its name in the card.

Rae et al. 2021 (Gopher), appendix A1.1, in milder form: the limits are fields of `QualityConfig`.
"""

import numpy as np

from containers.data.source import QualityConfig
from containers.data.words import Words

LETTERS = bytes(b for b in range(256) if b >= 128 or chr(b).isalpha())


def faults(texts: list[str], words: Words, limits: QualityConfig) -> list[str]:
    """Return, for each text, the name of the first filter that drops it, or an empty string."""
    counts = np.diff(words.offsets)
    sums = np.concatenate([[0], np.cumsum(words.lengths)])
    lengths = (sums[words.offsets[1:]] - sums[words.offsets[:-1]]) / np.maximum(counts, 1)
    return [
        fault(text, int(count), float(length), limits)
        for text, count, length in zip(texts, counts, lengths, strict=True)
    ]


def fault(text: str, count: int, length: float, limits: QualityConfig) -> str:
    """Return the name of the filter that drops `text` (of `count` words, `length` bytes each in the mean), or ""."""
    if count < limits.min_words:
        return "too few words"
    if length < limits.min_mean_word_length:
        return "words too short"
    if length > limits.max_mean_word_length and text.isascii():
        return "words too long"
    if letter_share(text) < limits.min_letter_share:
        return "too few letters"
    if repeated_share(text) > limits.max_repeated_line_share:
        return "repeated lines"
    return ""


def letter_share(text: str) -> float:
    """Return letters over all characters but white space, in bytes."""
    data = text.encode()
    white = data.count(b" ") + data.count(b"\n") + data.count(b"\t")
    others = len(data.translate(None, LETTERS)) - white
    return 1 - others / max(len(data) - white, 1)


def repeated_share(text: str) -> float:
    """Return characters in lines that stood before, over all characters in lines."""
    lines = text.split("\n")
    if len(lines) < 3:
        return 0.0
    total = len(text) - len(lines) + 1
    once = sum(map(len, set(lines)))
    return 1 - once / max(total, 1)
