"""What a person chooses for learning from a reward model: the algorithm is a type (`rlhf: {algorithm: ppo, ...}`)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from containers.alignment import AlignmentConfig
from containers.contract import aside
from containers.health import HealthConfig
from containers.rlhf.rloo_config import RLOOConfig


class PPOConfig(AlignmentConfig):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) for language models.

    As Ziegler et al. 2019 (arXiv:1909.08593) and Ouyang et al. 2022 (arXiv:2203.02155) do it.
    """

    algorithm: Literal["ppo"] = "ppo"
    """ppo | rloo."""
    updates: int = Field(200, ge=1)
    """Rollout batches in all; each is answered, scored and learnt from once."""
    batch_size: int = Field(64, ge=2)
    """Answers per rollout batch, one per prompt."""
    epochs: int = Field(4, ge=1)
    """Times that a rollout batch is gone through."""
    minibatch_size: int = Field(16, ge=1)
    """Answers per optimizer step."""
    micro_batch_size: int = Field(16, ge=1)
    """Answers in memory at once when they are scored or trained; changes memory and speed, not what is learnt."""
    max_prompt_tokens: int = Field(512, ge=1)
    """Longer prompts are left out (counted on the card)."""
    max_new_tokens: int = Field(128, ge=1)
    """Tokens after which an answer is cut off; it then gets `unended_reward`."""
    temperature: float = Field(1.0, gt=0)
    """Of the drawn answers, and of every log-probability that is compared with them."""
    unended_reward: float = -2.0
    """Reward of an answer that never ends, in standard deviations of the reward model's scores."""
    kl_coefficient: float = Field(0.05, ge=0)
    """What a nat of distance from the reference costs, in standard deviations of the reward model's scores."""
    kl_target: float | None = Field(None, gt=0)
    """KL (nats per answer) that the coefficient is steered to (Ziegler et al. 2019, section 2.2); null: it stays."""
    kl_horizon: int = Field(10_000, ge=1)
    """Answers over which a steered coefficient changes by up to a fifth."""
    clip_range: float = Field(0.2, gt=0)
    """Largest change of a token's probability ratio that is still paid for in one batch."""
    value_clip_range: float = Field(0.2, gt=0)
    """Largest change of a token's value in one batch that lowers the loss."""
    value_learning_rate: float | None = Field(None, gt=0)
    """Peak step size of the value head, which starts from zero; one over the model's width when absent."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount per token."""
    gae_lambda: float = Field(0.95, ge=0, le=1)
    """Trade of bias for variance in the advantages (Schulman et al. 2016, arXiv:1506.02438)."""
    max_epoch_kl: float | None = Field(0.1, gt=0)
    """A batch is left once KL(old || new), nats per token, of a minibatch is beyond this; null: never."""
    held_out_prompts: int = Field(32, ge=1)
    """Prompts of the validation split that are answered greedily for the held-out measure."""
    held_out_every: int = Field(10, ge=1)
    """Updates between two measures of them."""
    health: HealthConfig = HealthConfig(held_out_fall=1.0)
    """When a run that has gone wrong is stopped; the held-out measure is a score of the reward model."""
    checkpoint_every: int = aside(10, ge=1)
    """Updates between two checkpoints, each with a check of the run's health; a killed run goes on from the newest."""

    @model_validator(mode="after")
    def check_counts(self) -> Self:
        """Refuse numbers that contradict each other."""
        if self.batch_size % self.minibatch_size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of minibatch_size {self.minibatch_size}")
        return self


Algorithm = PPOConfig | RLOOConfig
RLHFConfig = Annotated[Algorithm, Field(discriminator="algorithm")]
