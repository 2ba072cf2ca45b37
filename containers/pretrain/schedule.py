"""How many steps, how fast in each, and when to measure: all from the config and the packed corpus."""

import math
from dataclasses import dataclass

from containers.pretrain.config import PretrainConfig

ANSWERED = (0.0, 0.1, 0.3, 1.0)
MEASURED = tuple(i / 10 for i in range(11))


@dataclass(frozen=True)
class Schedule:
    """The plan of a run of `steps` optimizer steps."""

    steps: int
    config: PretrainConfig

    @classmethod
    def of(cls, config: PretrainConfig, tokens_per_row: float) -> "Schedule":
        """Return the plan that spends `max_tokens` (padding not counted)."""
        return cls(max(1, round(config.max_tokens / (config.batch_size * tokens_per_row))), config)

    def learning_rate(self, step: int) -> float:
        """Return the rate of 0-based `step`: linear warm-up, then cosine (Loshchilov & Hutter 2017) or
        warm-up-stable-decay (Hu et al. 2024, MiniCPM) down to `final_share` of the peak.
        """
        config = self.config
        warmup = round(config.warmup_share * self.steps)
        if step < warmup:
            return config.learning_rate * (step + 1) / warmup
        decay = self.steps - warmup if config.schedule == "cosine" else round(config.decay_share * self.steps)
        gone = max(0.0, (step - (self.steps - decay)) / max(1, decay))
        left = (1 + math.cos(math.pi * gone)) / 2 if config.schedule == "cosine" else 1 - gone
        return config.learning_rate * (config.final_share + (1 - config.final_share) * left)

    def measured(self, step: int) -> bool:
        """Whether bits per byte are measured when `step` steps are done."""
        return step in {round(share * self.steps) for share in MEASURED}

    def answered(self, step: int) -> bool:
        """Whether the prompt is answered when `step` steps are done."""
        return step in {round(share * self.steps) for share in ANSWERED}
