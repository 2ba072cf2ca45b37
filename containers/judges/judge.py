"""Judges: who answers a question about an answer. The model itself, or an OpenAI-compatible endpoint.

judge = judge_of(config.judge, voice, recorded, out)
replies = judge.answer(conversations, max_tokens)
scores = score_all(judge, "Is it kind?", [(question, answer), ...])
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from containers.contract import Files, StageError
from containers.formats import Message
from containers.judges.config import EndpointJudgeConfig, JudgeConfig, SelfJudgeConfig
from containers.judges.endpoint import Endpoint, Question
from containers.judges.recordings import Recording, key_of
from containers.out import Out
from containers.speaking import Reply
from containers.voice import Conversation, Told, Voice

SCORE_TOKENS = 256
SCORE = re.compile(r"\**Score:\**\s*(10|[1-9])(?:\s*/\s*10)?\.?\**")
GRADING = """You grade the last answer in a conversation between a user and an assistant.

Criterion: {criterion}

Conversation:
{conversation}

Answer to grade:
{answer}

Weigh the answer against the criterion in one or two sentences. Then end with one line of the form
Score: N
where N is a whole number from 1 (worst) to 10 (best)."""


class Judge(Protocol):
    """Whoever answers."""

    name: str
    """`self`, or the name of the endpoint's model."""

    def answer(self, conversations: Sequence[Conversation], max_tokens: int, told: Told = ...) -> list[Reply | None]:
        """Return a reply to each conversation, None where there is no answer (too long, say)."""

    def close(self) -> None:
        """Leave behind what a person may want to give back."""


def judge_of(config: JudgeConfig, voice: Voice, recorded: Files | None, out: Out) -> Judge:
    """Return the judge that a person chose; `voice` is who speaks where the model judges itself."""
    if isinstance(config, SelfJudgeConfig):
        return SelfJudge(voice)
    return EndpointJudge(config, recorded, out)


def unheard(_: int) -> None:
    """Hear nothing of how far the answers are."""


class SelfJudge:
    """The model itself, greedily."""

    name = "self"

    def __init__(self, voice: Voice) -> None:
        """Let `voice` speak."""
        self.voice = voice

    def answer(
        self, conversations: Sequence[Conversation], max_tokens: int, told: Told = unheard
    ) -> list[Reply | None]:
        """Return a reply to each conversation, None to one that fills the context by itself."""
        return self.voice.answer(conversations, max_tokens, told)

    def close(self) -> None:
        """Leave nothing: the model is here to be asked again."""


class EndpointJudge:
    """A model behind an OpenAI-compatible endpoint; recorded answers are not asked for again."""

    def __init__(self, config: EndpointJudgeConfig, recorded: Files | None, out: Out) -> None:
        """Read what is recorded; raises StageError where the key's variable is empty or a recording is damaged."""
        self.config, self.name, self.out = config, config.model, out
        key = os.environ.get(config.key_env, "") if config.key_env else ""
        if config.key_env and config.live and not key:
            raise StageError(f"judge.key_env: {config.key_env} is not set here: set it, or leave key_env out")
        self.recording = Recording(recorded.path if recorded else None, out.work)
        self.endpoint = Endpoint(config, key)
        self.asked = 0

    def answer(
        self, conversations: Sequence[Conversation], max_tokens: int, told: Told = unheard
    ) -> list[Reply | None]:
        """Return a reply to each conversation, None where the endpoint refuses it.

        Raises StageError where the endpoint is not reached, or refuses everything that it is asked.
        """
        parameters = {"max_tokens": max_tokens, "temperature": 0, "seed": self.config.seed}
        questions = [{"model": self.name, "messages": list(c), "parameters": parameters} for c in conversations]
        keys = [key_of(self.name, question["messages"], parameters) for question in questions]
        missing = {key: q for key, q in zip(keys, questions, strict=True) if not self.recording.holds(key)}
        if missing:
            self.ask(list(missing.values()), told)
        return [self.recording.reply(key) for key in keys]

    def ask(self, questions: list[Question], told: Told) -> None:
        """Ask live for what is not recorded, and record it; raises StageError."""
        if not self.config.live:
            raise StageError(
                f"judge.recorded: {len(questions)} answers of {self.name} are not recorded, and live: false asks "
                "nobody: set live: true, and give what it leaves in outputs/recorded/ back"
            )
        done, refused = 0, []

        def heard(question: Question, reply: Reply | None) -> None:
            nonlocal done
            done += 1
            told(done)
            if reply is None:
                refused.append(question)
            else:
                self.recording.add(question, reply)

        self.endpoint.ask_all(questions, heard)
        if len(refused) == len(questions):
            raise StageError(
                f"{self.config.url} refuses every question ({self.endpoint.refusals[-1]}): check judge.model, and "
                "that the questions and max_tokens fit its context"
            )
        for question in refused:
            self.recording.add(question, None)
        self.asked += len(questions)

    def close(self) -> None:
        """Write outputs/recorded/answers.jsonl, a complete recording of this run."""
        self.recording.write(self.out.artifact("recorded"))
        if self.asked:
            self.out.say(
                f"{self.asked} answers of {self.name} were asked for: outputs/recorded/answers.jsonl keeps them all "
                "(work/answers.jsonl of the staging folder, should this stage fail)"
            )


@dataclass(frozen=True)
class Scored:
    """What a judge made of several answers."""

    scores: list[float | None]
    """Of each answer from 0 (worst) to 1 (best); None where the judge said nothing that is a score."""
    unparsable: int
    """Replies without a score on their last line."""
    unanswered: int
    """Answers that the judge gave no reply on."""


def score_all(
    judge: Judge, criterion: str, answers: Sequence[tuple[Conversation, str]], told: Told = unheard
) -> Scored:
    """Return the judge's score of each (conversation, answer to it) by one criterion."""
    return scored(judge, [(criterion, *answer) for answer in answers], told)


def scored(judge: Judge, answers: Sequence[tuple[str, Conversation, str]], told: Told = unheard) -> Scored:
    """Return the judge's score of each (criterion, conversation, answer to it)."""
    replies = judge.answer([grading(*answer) for answer in answers], SCORE_TOKENS, told)
    scores = [score_in(reply.text) if reply else None for reply in replies]
    unanswered = sum(reply is None for reply in replies)
    return Scored(scores, sum(score is None for score in scores) - unanswered, unanswered)


def grading(criterion: str, conversation: Conversation, answer: str) -> list[Message]:
    """Return the question that asks for a score of `answer`."""
    said = "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in conversation)
    text = GRADING.format(criterion=criterion, conversation=said, answer=answer)
    return [{"role": "user", "content": text}]


def score_in(reply: str) -> float | None:
    """Return the score that a reply's last line gives, from 0 (worst) to 1 (best); None where it gives none.

    Strict: `Score: 7` alone on that line (bold, `/10` and a full stop aside); a number elsewhere is no score.
    """
    lines = reply.strip().splitlines()
    found = SCORE.fullmatch(lines[-1].strip()) if lines else None
    return (int(found[1]) - 1) / 9 if found else None
