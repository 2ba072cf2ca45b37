"""The typed shape of `align:` in a recipe: steps in the order in which they are taken."""

from typing import Self

from pydantic import model_validator

from containers.contract import Config
from containers.critique.contract import CritiqueConfig
from containers.dpo.contract import DPOConfig
from containers.grpo.contract import GRPOConfig
from containers.reward.contract import RewardConfig
from containers.rlhf.contract import RLHFConfig
from containers.weights import Weights

NEEDS_PAIRS = ("reward", "dpo", "rlhf")


class Step(Config):
    """One step of alignment: exactly one stage with its settings, for example `- dpo: {beta: 0.1}`."""

    critique: CritiqueConfig | None = None
    """Have a judge criticise and revise answers by a constitution; the pairs are the judgements of the steps after."""
    reward: RewardConfig | None = None
    """Learn from the judgements what people prefer, as one number; `rlhf` follows it."""
    dpo: DPOConfig | None = None
    """Align with the judgements directly; no reward model."""
    rlhf: RLHFConfig | None = None
    """Raise the reward of the model's own answers; `algorithm` is ppo or rloo."""
    grpo: GRPOConfig | None = None
    """Raise the share of problems that are solved."""
    beside: bool = False
    """Measure and report the model of this step, but go on from the one before it."""

    @model_validator(mode="after")
    def is_one_stage(self) -> Self:
        """Refuse a step of no stage or of several."""
        stages = [name for name in self.stages() if getattr(self, name) is not None]
        if len(stages) != 1:
            raise ValueError(f"a step names exactly one of {', '.join(self.stages())}; this one names {len(stages)}")
        if self.beside and stages[0] in ("critique", "reward"):
            raise ValueError(f"beside: {stages[0]} makes no model that could be measured beside the line")
        return self

    @classmethod
    def stages(cls) -> list[str]:
        """Return the stages that a step may be."""
        return [name for name in cls.model_fields if name != "beside"]

    @property
    def word(self) -> str:
        """The stage's word."""
        return next(name for name in self.stages() if getattr(self, name) is not None)

    @property
    def weights(self) -> Weights | None:
        """Which weights the step's model is trained in; None for a step that makes no model."""
        makes_model = self.dpo or self.rlhf or self.grpo
        return makes_model.weights if makes_model else None

    @property
    def name(self) -> str:
        """What the model of this step is called in the run: dpo, ppo, rloo, grpo."""
        return self.rlhf.algorithm if self.rlhf else self.word


def names_of(steps: tuple[Step, ...]) -> list[str]:
    """Return a name per step, numbered where one occurs twice: dpo, grpo, dpo-2."""
    names: list[str] = []
    for step in steps:
        before = sum(name.partition("-")[0] == step.name for name in names)
        names.append(f"{step.name}-{before + 1}" if before else step.name)
    return names


def missing_in(steps: tuple[Step, ...], *, pairs: bool, problems: bool) -> str:
    """Return what a list of steps lacks, and what to do; empty where every step finds what it needs."""
    judged = rewarded = False
    for number, step in enumerate(steps):
        judged |= step.word == "critique"
        rewarded |= step.word == "reward"
        if step.word in NEEDS_PAIRS and not (pairs or judged):
            return f"align.{number}.{step.word} needs judgements: add data.preferences, or a critique step before it"
        if step.word == "rlhf" and not rewarded:
            return f"align.{number}.rlhf needs a reward model: add a reward step before it"
        if step.word == "grpo" and not problems:
            return f"align.{number}.grpo needs data.problems, questions whose answers can be checked"
    return ""
