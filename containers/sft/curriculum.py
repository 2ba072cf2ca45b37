"""The order in which lessons are learnt: a permutation per epoch, cut into global batches and packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from containers.formats import Rendered
from containers.sft.config import LessonsConfig


@dataclass(frozen=True)
class Curriculum:
    """Which lessons each optimizer step sees: a permutation per epoch, cut into global batches, packed."""

    lessons: Sequence[Rendered]
    config: LessonsConfig

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every lesson once."""
        return -(-len(self.lessons) // self.config.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.config.max_steps or self.config.epochs * self.steps_per_epoch

    def batch(self, step: int) -> list[list[Rendered]]:
        """Return the micro-batches of `step` (from 0)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = permutation(len(self.lessons), self.config.seed, epoch)
        size = self.config.batch_size
        return pack([self.lessons[i] for i in order[place * size : (place + 1) * size]], self.config)


@lru_cache(maxsize=2)
def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def pack(lessons: list[Rendered], config: LessonsConfig) -> list[list[Rendered]]:
    """Return `lessons` in micro-batches, longest first: first-fit by tokens, or by count without packing."""
    ordered = sorted(lessons, key=lambda lesson: -len(lesson.ids))
    size = config.micro_batch_size
    if not config.packing:
        return [ordered[i : i + size] for i in range(0, len(ordered), size)]
    bins: list[list[Rendered]] = []
    room: list[int] = []
    for lesson in ordered:
        fits = next((i for i, free in enumerate(room) if free >= len(lesson.ids)), None)
        if fits is None:
            bins.append([])
            room.append(size * config.max_length)
            fits = len(bins) - 1
        bins[fits].append(lesson)
        room[fits] -= len(lesson.ids)
    return bins
