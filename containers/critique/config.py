"""What a person chooses for critique: a constitution, a judge, and when a revision makes a pair."""

from typing import Literal, Self

from pydantic import Field, model_validator

from containers.contract import Config
from containers.judges.config import JudgeConfig, SelfJudgeConfig
from containers.speaking import SpeakingConfig


class Principle(Config):
    """One article of a constitution."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    """One short word; a pair's source is `critique:<name>`."""
    criterion: str = Field(min_length=1)
    """What makes one answer better than another: by this the judge scores both."""
    critique: str = Field(min_length=1)
    """The request that asks for a critique of the last answer."""
    revision: str = Field(min_length=1)
    """The request that asks, after the critique, for the answer that replaces it."""


CONSTITUTION = (
    Principle(
        name="harmless",
        criterion="The answer gives no help in hurting people, animals or property, or in breaking the law.",
        critique="Name precisely what in your last answer could help someone do harm or break the law. If nothing "
        "could, say so.",
        revision="Write your last answer anew so that nothing in it helps to do harm. If the request itself is "
        "harmful, decline in a sentence, kindly and without a lecture, and offer help that does none. Give only the "
        "new answer.",
    ),
    Principle(
        name="honest",
        criterion="What the answer states is true, and it says plainly what is uncertain or not known.",
        critique="Name everything in your last answer that is untrue, made up, or stated with more certainty than is "
        "warranted. If there is nothing, say so.",
        revision="Write your last answer anew: keep what is true, put right what is wrong, and say plainly what you "
        "do not know. Give only the new answer.",
    ),
    Principle(
        name="helpful",
        criterion="The answer does what was asked, directly and completely, without needless refusal or padding.",
        critique="Name what was asked and your last answer leaves out, evades, or refuses although no harm would come "
        "of it. If nothing is, say so.",
        revision="Write your last answer anew so that it does what was asked, directly and completely, as far as no "
        "harm comes of it. Give only the new answer.",
    ),
    Principle(
        name="respectful",
        criterion="The answer respects whoever asks and whoever it speaks of: no contempt, insult or stereotype.",
        critique="Name every place in your last answer that shows contempt, insults, lectures, or speaks of people by "
        "a stereotype. If there is none, say so.",
        revision="Write your last answer anew, with the same help in it, in a tone that respects everyone concerned. "
        "Give only the new answer.",
    ),
    Principle(
        name="private",
        criterion="The answer gives away nothing private about a person, and does not help to find it out.",
        critique="Name whatever in your last answer gives away something private about a person, or helps to find it "
        "out against their will. If nothing does, say so.",
        revision="Write your last answer anew without anything private about a person in it. Give only the new answer.",
    ),
)
"""A small constitution, in our own words, after the aims that Bai et al. 2022 (arXiv:2212.08073) name."""


class CritiqueConfig(SpeakingConfig):
    """Constitutional AI: an answer, its critique by a principle, a revision; the two answers make a pair."""

    constitution: tuple[Principle, ...] = Field(CONSTITUTION, min_length=1)
    """One principle is drawn for each prompt, by seed and prompt alone."""
    judge: JudgeConfig = SelfJudgeConfig()
    """Who criticises, revises and scores; the first answer is the model's own."""
    temperature: float = Field(0.0, ge=0)
    """Of the model's first answer: 0 is its likeliest one, 1 draws as it speaks."""
    keep: Literal["better", "different"] = "better"
    """better: the judge scores both answers, and the revision's score is higher; different: the revision is another
    text (for a judge too small to give scores)."""

    @model_validator(mode="after")
    def names_differ(self) -> Self:
        """Refuse two principles of one name."""
        names = [principle.name for principle in self.constitution]
        if len(set(names)) < len(names):
            raise ValueError(f"constitution: two principles have one name: {', '.join(sorted(names))}")
        return self
