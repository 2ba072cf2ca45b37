"""What a person chooses for group-relative policy optimisation: what earns a reward, and how much each counts."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from containers.contract import Config, aside
from containers.judges.config import EndpointJudgeConfig
from containers.online.config import OnlineConfig


class Weighted(Config):
    """A part of the reward."""

    weight: float = 1.0
    """What it is multiplied with in the sum; negative for a penalty."""


class AnswerReward(Weighted):
    """1 for the right answer, else 0, as evaluate counts it (numbers as numbers; LaTeX by math-verify)."""

    kind: Literal["answer"] = "answer"
    """answer | format | length | function | judge."""


class FormatReward(Weighted):
    """1 for a reply that has the form asked for, else 0."""

    kind: Literal["format"] = "format"
    """answer | format | length | function | judge."""
    pattern: str | None = None
    """Regular expression (Python's, `.` matches a line break too) that the whole reply must match; absent: the form
    that `instruction` asks for (`\\boxed{}`, `####`, or step by step)."""

    @model_validator(mode="after")
    def check_pattern(self) -> Self:
        """Refuse what is no regular expression."""
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern: {error}") from error
        return self


class LengthReward(Weighted):
    """1 for a reply of between `min_tokens` and `max_tokens`, falling linearly to 0 at none and at twice the most."""

    kind: Literal["length"] = "length"
    """answer | format | length | function | judge."""
    min_tokens: int = Field(0, ge=0)
    """Shorter replies earn less."""
    max_tokens: int = Field(128, ge=1)
    """Longer replies earn less."""


class FunctionReward(Weighted):
    """What a Python function of a person's own returns, called as TRL calls one; its file is an input of the stage."""

    kind: Literal["function"] = "function"
    """answer | format | length | function | judge."""
    path: str = aside(...)
    """`my_rewards.py:score` or `package.module:score`."""
    function: str = ""
    """Name of the function: what stands after the colon of `path`."""

    @model_validator(mode="before")
    @classmethod
    def split(cls, given: Any) -> Any:
        """Take the function's name out of the path: where a file lies does not shape a result, the name does."""
        if isinstance(given, dict) and isinstance(given.get("path"), str) and not given.get("function"):
            path, _, name = given["path"].rpartition(":")
            if not path or not name.isidentifier():
                raise ValueError(f"path {given['path']!r} names no function: write my_rewards.py:score")
            return {**given, "path": path, "function": name}
        return given

    @property
    def file(self) -> str:
        """Name of the function's file among the stage's inputs."""
        return re.split(r"[/\\]", self.path)[-1] if self.path.endswith(".py") else self.path.split(".")[-1] + ".py"


class JudgeReward(Weighted):
    """A judge's score by one criterion, from 0 (worst) to 1 (best); `grpo.judge` says who judges."""

    kind: Literal["judge"] = "judge"
    """answer | format | length | function | judge."""
    criterion: str
    """What the judge weighs an answer against, in a sentence."""


Reward = Annotated[
    AnswerReward | FormatReward | LengthReward | FunctionReward | JudgeReward, Field(discriminator="kind")
]


class GRPOConfig(OnlineConfig):
    """What a person chooses."""

    rewards: tuple[Reward, ...] = Field((AnswerReward(),), min_length=1)
    """The parts of the reward; an answer earns their weighted sum."""
    judge: EndpointJudgeConfig | None = None
    """Who scores the rewards of kind judge."""
    instruction: str = ""
    """Added to each problem on a line of its own ("Think step by step.")."""
    tasks: tuple[str, ...] = ()
    """Tasks of the problems that are trained on, with all below them (`shop` is also `shop.change`); absent: all."""
    loss: Literal["dapo", "dr_grpo", "grpo"] = "dapo"
    """What an answer's tokens are divided by: all tokens of the rollout (dapo), the longest allowed answer (dr_grpo:
    no bias to long answers), the answer's own (grpo: DeepSeekMath)."""
    scale: Literal["group", "batch", "none"] = "group"
    """Advantages are divided by the spread of their group, of the whole rollout, or not at all."""
    zero_spread: Literal["skip", "keep"] = "skip"
    """Answers of a group that all earn the same teach nothing: skip spares their backward pass (and their pull to the
    reference, where beta is above 0)."""

    @model_validator(mode="after")
    def has_a_judge(self) -> Self:
        """Refuse a judge's reward without a judge."""
        if self.judge is None and any(reward.kind == "judge" for reward in self.rewards):
            raise ValueError("a reward of kind judge needs `judge`: who is asked")
        return self
