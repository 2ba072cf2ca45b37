"""Rewards that can be checked: a right answer, a form, a length, a person's own function, a judge's score.

Each is called as TRL calls a reward function, `reward(prompts, completions, completion_ids, answer, task, ...)`, with
one entry per reply, and returns a number per reply (None: it does not apply). Each carries unit cases that must hold
before the first answer is drawn.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from containers.answers import is_right, number_of
from containers.contract import StageError
from containers.formats import Message
from containers.grpo.config import AnswerReward, FormatReward, JudgeReward, LengthReward
from containers.judges.judge import Judge, score_all

Values = list[float | None]
MATHEMATICAL = re.compile(r"[\\^=\u221a\u03c0]|\d\s*[a-z(]")
"""What an expected answer holds that is neither a plain number nor words."""
FORMS = (
    ("\\boxed", r".*\\boxed\{.+\}.*"),
    ("####", r".*####\s*\S[^\n]*\s*"),
    ("step by step", r"\S.*(?:[.!?:]\s|\n|=.*=)\s*\S.*"),
)
"""What an instruction asks for -> the form of a reply that does so; step by step is more than one statement."""


@dataclass(frozen=True)
class Case:
    """A reply whose reward is known."""

    name: str
    """good, bad, boundary or adversarial, and what it tries."""
    reply: str
    reward: float
    expected: str = ""
    """The answer that the problem holds for right."""
    tokens: int = 1
    """Length of the reply, where it counts."""
    prompt: str = "?"


class Rewarding(Protocol):
    """A reward function with its name (a curve of its own), its weight and its cases."""

    __name__: str
    weight: float
    cases: Sequence[Case]

    def __call__(self, **columns: Any) -> Values:
        """Return a reward per reply."""


class Answers:
    """1 for the right answer, else 0."""

    __name__ = "answer"
    cases = (
        Case("good: a bare number", "24", 1, "24"),
        Case("good: worked steps", "Total = 6 x 2 = 12 dollars. Change = 50 - 12 = 38 dollars.", 1, "38"),
        Case("good: a GSM8K mark", "It is 24.\n#### 1,024", 1, "1024"),
        Case("good: a box", "So \\boxed{\\frac{1}{2}} of it.", 1, "0.5"),
        Case("good: LaTeX of the same value", "$\\boxed{2\\sqrt{3}}$", 1, "$\\sqrt{12}$"),
        Case("bad: another number", "23", 0, "24"),
        Case("bad: no answer", "I do not know.", 0, "24"),
        Case("boundary: an empty reply", "", 0, "24"),
        Case("boundary: the sign counts", "-24", 0, "24"),
        Case("boundary: a unit and a separator", "It costs $1,200.00 in all", 1, "1200"),
        Case("adversarial: many numbers, the right one among them", "22 23 24 25 26", 0, "24"),
        Case("adversarial: digits that contain it", "1245", 0, "24"),
        Case("adversarial: right, then another", "24. No: the answer is 25.", 0, "24"),
    )

    def __init__(self, config: AnswerReward) -> None:
        """Take the weight."""
        self.weight = config.weight

    def __call__(self, completions: list[list[Message]], answer: list[str], **_: Any) -> Values:
        """Return a reward per reply."""
        pairs = zip(completions, answer, strict=True)
        return [float(is_correct(turns[-1]["content"], expected)) for turns, expected in pairs]


def is_correct(reply: str, expected: str) -> bool:
    """Tell whether a reply is right: as evaluate counts it, or an equal expression (math-verify)."""
    if number_of(expected) is not None or not MATHEMATICAL.search(expected):
        return is_right(reply, expected)
    from math_verify import parse, verify  # 1 s of imports that most problems do not need

    return bool(verify(parse(expected), parse(reply)))


class Form:
    """1 for a reply that has the form asked for, else 0."""

    __name__ = "format"

    def __init__(self, config: FormatReward, instruction: str) -> None:
        """Compile the pattern, or the one that the instruction asks for; raises StageError where it asks for none."""
        self.weight = config.weight
        asked = next((form for words, form in FORMS if words in instruction.casefold()), None)
        if config.pattern is None and asked is None:
            raise StageError(
                f"rewards: format has no pattern, and instruction {instruction!r} asks for no form that is known "
                f"({', '.join(words for words, _ in FORMS)}): give a pattern"
            )
        self.pattern = re.compile(config.pattern or str(asked), re.DOTALL)
        self.cases = FORM_CASES.get(str(asked), ()) if config.pattern is None else ()

    def __call__(self, completions: list[list[Message]], **_: Any) -> Values:
        """Return a reward per reply."""
        return [float(bool(self.pattern.fullmatch(turns[-1]["content"]))) for turns in completions]


FORM_CASES = {
    FORMS[0][1]: (
        Case("good: boxed", "So it is \\boxed{24}.", 1),
        Case("bad: not boxed", "So it is 24.", 0),
        Case("adversarial: an empty box", "\\boxed{}", 0),
    ),
    FORMS[1][1]: (
        Case("good: marked at the end", "6 x 4 = 24\n#### 24", 1),
        Case("bad: no mark", "24", 0),
        Case("boundary: nothing after the mark", "24 ####", 0),
        Case("adversarial: goes on after the answer", "#### 24\nor perhaps 25", 0),
    ),
    FORMS[2][1]: (
        Case("good: two statements", "Total = 6 x 2 = 12. Change = 50 - 12 = 38.", 1),
        Case("bad: the answer alone", "38", 0),
        Case("boundary: an empty reply", "", 0),
        Case("adversarial: white space for steps", "\n\n\n", 0),
    ),
}


class Length:
    """1 for a reply of the length asked for, falling linearly to 0 outside."""

    __name__ = "length"

    def __init__(self, config: LengthReward) -> None:
        """Take the bounds."""
        self.weight, self.least, self.most = config.weight, config.min_tokens, config.max_tokens
        self.cases = (
            Case("good: within", "x", 1, tokens=self.most),
            Case("bad: twice too long", "x", 0, tokens=2 * self.most),
            Case("boundary: as short as allowed", "x", 1, tokens=self.least),
            Case("adversarial: without end", "x", 0, tokens=100 * self.most),
        )

    def __call__(self, completion_ids: list[list[int]], **_: Any) -> Values:
        """Return a reward per reply."""
        return [self.of(len(ids)) for ids in completion_ids]

    def of(self, tokens: int) -> float:
        """Return the reward of a reply of so many tokens."""
        if tokens < self.least:
            return tokens / self.least
        return max(0.0, 1 - max(0, tokens - self.most) / self.most)


class Judged:
    """A judge's score by one criterion."""

    cases = ()

    def __init__(self, config: JudgeReward, judge: Judge, number: int) -> None:
        """Ask `judge`; `number` tells several criteria apart."""
        self.__name__ = f"judge_{number}"
        self.weight, self.criterion, self.judge = config.weight, config.criterion, judge

    def __call__(self, prompts: list[list[Message]], completions: list[list[Message]], **_: Any) -> Values:
        """Return a score per reply; None where the judge gave none."""
        asked = [(prompt, turns[-1]["content"]) for prompt, turns in zip(prompts, completions, strict=True)]
        return score_all(self.judge, self.criterion, asked).scores


def check_cases(reward: Callable[..., Values], cases: Sequence[Case]) -> None:
    """Raise StageError naming the first case that a reward function gets wrong."""
    for case in cases:
        found = reward(
            prompts=[[{"role": "user", "content": case.prompt}]],
            completions=[[{"role": "assistant", "content": case.reply}]],
            completion_ids=[[0] * case.tokens],
            answer=[case.expected],
            task=[""],
        )[0]
        if found is None or abs(found - case.reward) > 1e-6:
            raise StageError(
                f"rewards: {reward.__name__} gives {found} where its case {case.name!r} wants {case.reward} "
                f"(reply {case.reply[:80]!r}, expected answer {case.expected!r}): nothing was trained"
            )
