"""From a prompt to a pair: first answer, critique by a principle, revision, and whether the revision is better.

The requests follow Bai et al. 2022 (arXiv:2212.08073, section 3.1): critique and revision continue the conversation.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from containers.contract import Split
from containers.critique.config import CritiqueConfig, Principle
from containers.formats import Message
from containers.judges.judge import Judge, scored
from containers.prompts import Prompt
from containers.speaking import Reply
from containers.voice import Voice

Outcome = Literal[
    "", "kept", "prompt_too_long", "first_empty", "first_cut", "no_critique", "no_revision", "revision_empty",
    "revision_cut", "same_answer", "not_judged", "not_better",
]  # fmt: skip
"""What became of a prompt; empty while it is under way."""


@dataclass
class Case:
    """One prompt on its way to a pair."""

    id: str
    split: Split
    task: str | None
    prompt: list[Message]
    principle: str
    first: str = ""
    critique: str = ""
    revision: str = ""
    first_score: float | None = None
    """The judge's, from 0 to 1."""
    revision_score: float | None = None
    outcome: Outcome = ""


class Reviewer:
    """Takes prompts through the four steps, many at once."""

    def __init__(self, config: CritiqueConfig, voice: Voice, judge: Judge, told: Callable[..., None]) -> None:
        """`voice` answers first, `judge` does the rest; `told` hears that work goes on."""
        self.config, self.voice, self.judge, self.told = config, voice, judge, told
        self.principles = {principle.name: principle for principle in config.constitution}

    def review(self, number: int, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Return what became of each prompt of chunk `number`, as JSON values."""
        cases = [Case(p.id, p.split, p.task, p.messages, self.drawn(p)) for p in prompts]
        self.answer(cases, number)
        self.criticise(under_way(cases))
        self.revise(under_way(cases))
        if self.config.keep == "better":
            self.compare(under_way(cases))
        for case in under_way(cases):
            case.outcome = "kept"
        return [asdict(case) for case in cases]

    def drawn(self, prompt: Prompt) -> str:
        """Return the principle of a prompt: other prompts do not change it."""
        return random.Random(f"{self.config.seed} {prompt.id}").choice(list(self.principles))

    def principle(self, case: Case) -> Principle:
        """Return the principle by which a case is criticised."""
        return self.principles[case.principle]

    def answer(self, cases: list[Case], number: int) -> None:
        """Have the model answer."""
        draw = self.voice.draw(self.config.temperature, seed_of(self.config.seed, number))
        replies = self.voice.answer([case.prompt for case in cases], self.config.max_tokens, self.told, draw)
        for case, reply in zip(cases, replies, strict=True):
            case.first = reply.text if reply else ""
            case.outcome = fault_of(reply, ("prompt_too_long", "first_empty", "first_cut"))

    def criticise(self, cases: list[Case]) -> None:
        """Have the judge criticise the first answers; a critique may be cut, it is read as far as it goes."""
        for case, reply in zip(cases, self.ask([self.until_critique(case) for case in cases]), strict=True):
            case.critique = reply.text if reply else ""
            case.outcome = "" if case.critique else "no_critique"

    def revise(self, cases: list[Case]) -> None:
        """Have the judge write the answers anew."""
        asked = [[*self.until_critique(c), *turns(c.critique, self.principle(c).revision)] for c in cases]
        for case, reply in zip(cases, self.ask(asked), strict=True):
            case.revision = reply.text if reply else ""
            case.outcome = fault_of(reply, ("no_revision", "revision_empty", "revision_cut"))
            if not case.outcome and squeezed(case.revision) == squeezed(case.first):
                case.outcome = "same_answer"

    def compare(self, cases: list[Case]) -> None:
        """Have the judge score both answers, without knowing which is which."""
        answers = [(self.principle(c).criterion, c.prompt, text) for c in cases for text in (c.first, c.revision)]
        scores = scored(self.judge, answers, self.told).scores
        for case, first, revision in zip(cases, scores[::2], scores[1::2], strict=True):
            case.first_score, case.revision_score = first, revision
            if first is None or revision is None:
                case.outcome = "not_judged"
            elif revision <= first:
                case.outcome = "not_better"

    def until_critique(self, case: Case) -> list[Message]:
        """Return the conversation up to the request for a critique."""
        return [*case.prompt, *turns(case.first, self.principle(case).critique)]

    def ask(self, conversations: list[list[Message]]) -> list[Reply | None]:
        """Return the judge's replies."""
        return self.judge.answer(conversations, self.config.max_tokens, self.told)


def under_way(cases: list[Case]) -> list[Case]:
    """Return the cases that nothing has ended."""
    return [case for case in cases if not case.outcome]


def turns(answer: str, request: str) -> list[Message]:
    """Return an answer and the next request as turns."""
    return [{"role": "assistant", "content": answer}, {"role": "user", "content": request}]


def fault_of(reply: Reply | None, names: tuple[Outcome, Outcome, Outcome]) -> Outcome:
    """Return which of (absent, empty, cut) a reply is; empty for a good one."""
    absent, empty, cut = names
    if reply is None:
        return absent
    return empty if not reply.text else "" if reply.finished else cut


def squeezed(text: str) -> str:
    """Return `text` without differences of white space."""
    return " ".join(text.split())


def seed_of(seed: int, number: int) -> int:
    """Return the seed of a chunk."""
    return random.Random(f"{seed} {number}").getrandbits(63)
