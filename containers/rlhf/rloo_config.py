"""What a person chooses for RLOO."""

from typing import Literal

from containers.alignment import AlignmentConfig


class RLOOConfig(AlignmentConfig):
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv:2402.14740)."""

    algorithm: Literal["rloo"] = "rloo"
    """ppo | rloo."""
