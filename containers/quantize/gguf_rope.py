"""Rotary position embeddings in llama.cpp's words."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGUFWriter, RopeScalingType

from containers.contract import StageError


@dataclass(frozen=True)
class RopeScaling:
    """What config.json says of positions; `factors` divides each frequency (Llama 3)."""

    theta: float
    type: str
    values: dict[str, Any]
    factors: np.ndarray | None = None

    @classmethod
    def of(cls, config: dict[str, Any], head_size: int) -> "RopeScaling":
        """Read `rope_parameters` (or the older `rope_theta` and `rope_scaling`); raises StageError."""
        values = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = values.get("rope_type") or values.get("type") or "default"
        theta = float(values.get("rope_theta") or config.get("rope_theta") or 10000.0)
        if float(values.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1) != 1:
            raise StageError("config.json: partial_rotary_factor: a head that is rotated in part cannot be converted")
        if kind == "llama3":
            return cls(theta, kind, values, llama3_factors(values, theta, head_size))
        if kind not in ("default", "linear", "yarn"):
            raise StageError(
                f"config.json: rope scaling {kind!r} cannot be converted: default, linear, yarn and llama3 can"
            )
        return cls(theta, kind, values)

    def describe(self, writer: GGUFWriter) -> None:
        """Write the base frequency and the scaling."""
        writer.add_rope_freq_base(self.theta)
        if self.type == "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(self.values["factor"]))
        elif self.type == "yarn":
            writer.add_rope_scaling_type(RopeScalingType.YARN)
            writer.add_rope_scaling_factor(float(self.values["factor"]))
            writer.add_rope_scaling_orig_ctx_len(int(self.values["original_max_position_embeddings"]))


def llama3_factors(values: dict[str, Any], theta: float, size: int) -> np.ndarray:
    """Return the divisor of each frequency, shape (size / 2,): long waves are stretched, short ones kept.

    Between the two, a smooth passage (The Llama 3 Herd of Models, 2024, arXiv:2407.21783; the rule is that of Meta's
    reference code).
    """
    factor, original = float(values["factor"]), float(values["original_max_position_embeddings"])
    low, high = float(values["low_freq_factor"]), float(values["high_freq_factor"])
    waves = 2 * math.pi * theta ** (np.arange(0, size, 2, dtype=np.float64) / size)
    smooth = np.clip((original / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
