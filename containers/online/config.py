"""What a person chooses where a policy learns from its own answers: the rollouts and how often they are measured."""

from typing import Self

from pydantic import Field, model_validator

from containers.alignment import AlignmentConfig
from containers.contract import aside
from containers.health import HealthConfig


class OnlineConfig(AlignmentConfig):
    """What grpo and rloo share: groups of answers to a prompt, each held against the others of its group."""

    steps: int = Field(100, ge=1)
    """Optimizer steps in all."""
    prompts_per_rollout: int = Field(8, ge=1)
    """Prompts that are answered at once; each step of the rollout takes its share of the answers."""
    answers_per_prompt: int = Field(8, ge=2)
    """Answers drawn for each prompt: the group that an answer is held against."""
    steps_per_rollout: int = Field(1, ge=1)
    """Optimizer steps that share the answers of a rollout out among them; a stage checkpoints only between rollouts."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Answers in one forward and backward pass; absent: all of a step. Memory and speed, not what is learnt."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest answer; a longer one is cut, and judged as it stands."""
    temperature: float = Field(1.0, gt=0)
    """Of the draws; below 1 answers differ less, and there is less to learn from."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL divergence from the policy as it came; 0 keeps no reference."""
    validate_every: int = aside(25, ge=1)
    """Optimizer steps between two measurements on held-out prompts; before and after are always measured."""
    validation_rows: int = aside(128, ge=0)
    """Held-out prompts that are measured, of the validation split."""
    health: HealthConfig = HealthConfig()
    """When a run that has gone wrong is stopped."""
    checkpoint_every: int = aside(25, ge=1)
    """Rollouts between two checkpoints, each with a check of the run's health; a killed run goes on from the newest."""

    @model_validator(mode="after")
    def check_shares(self) -> Self:
        """Refuse a rollout that its steps or micro-batches cannot share out evenly."""
        answers = self.prompts_per_rollout * self.answers_per_prompt
        if answers % self.steps_per_rollout:
            raise ValueError(f"{answers} answers of a rollout cannot be shared among {self.steps_per_rollout} steps")
        if self.steps % self.steps_per_rollout:
            raise ValueError(f"steps {self.steps} is no multiple of steps_per_rollout {self.steps_per_rollout}")
        if (answers // self.steps_per_rollout) % self.micro_batch:
            raise ValueError(f"micro_batch_size {self.micro_batch} does not divide the answers of a step")
        return self

    @property
    def micro_batch(self) -> int:
        """Answers in one forward and backward pass."""
        return self.micro_batch_size or self.prompts_per_rollout * self.answers_per_prompt // self.steps_per_rollout

    @property
    def passes_per_step(self) -> int:
        """Forward and backward passes of an optimizer step."""
        return self.prompts_per_rollout * self.answers_per_prompt // self.steps_per_rollout // self.micro_batch
