"""What a person chooses for RLOO."""

from typing import Literal

from pydantic import Field

from containers.contract import aside
from containers.health import HealthConfig
from containers.online.config import OnlineConfig


class RLOOConfig(OnlineConfig):
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv:2402.14740)."""

    algorithm: Literal["rloo"] = "rloo"
    """ppo | rloo."""
    answers_per_prompt: int = Field(4, ge=2)
    """Answers drawn for each prompt: the group that an answer is held against."""
    beta: float = Field(0.05, ge=0)
    """What a nat of distance from the policy as it came costs, in the reward model's own unit; 0: no reference."""
    unended_penalty: float = Field(1.0, ge=0)
    """Taken off the score of an answer that is cut off before it ends."""
    normalize_advantages: bool = False
    """Divide the advantages of a rollout by their spread: the learning rate then means the same for any scores."""
    clip_range: float = Field(0.2, gt=0)
    """Largest change of an answer's probability ratio that is still paid for, where a rollout lasts several steps."""
    max_prompt_tokens: int = Field(512, ge=1)
    """Longer prompts are left out (counted on the card)."""
    validation_rows: int = aside(32, ge=0)
    """Held-out prompts that are answered greedily and scored, the first ones of the validation split."""
    health: HealthConfig = HealthConfig(held_out_fall=1.0)
    """When a run that has gone wrong is stopped; the held-out measure is a score of the reward model."""
