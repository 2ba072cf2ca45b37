"""What a record's columns mean: recognise the shape of a file from its first records, and convert each record."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from containers.data.conversations import content_of, messages_of, transcript
from containers.data.records import Bad
from containers.data.source import Shape
from containers.data.thumbs import liked
from containers.formats import Message

MARKS = re.compile(r"<<[^<>\n]*>>")
FINAL = re.compile(r"\n?####\s*(.+?)\s*$")
ALIASES = {
    "text": ("content", "raw_content", "document"),
    "completion": ("response", "output", "answer"),
    "output": ("response",),
    "input": ("context",),
    "prompt": ("question", "instruction"),
}
"""Our column name -> other people's, taken where ours is absent."""


@dataclass
class Meaning:
    """What one record says, before it is fitted to a role."""

    text: str | None = None
    messages: list[Message] | None = None
    answer: str | None = None
    prompt: list[Message] | None = None
    chosen: list[Message] | None = None
    rejected: list[Message] | None = None


@dataclass(frozen=True)
class Context:
    """What a person said about a source: names of speakers, and whether calculator marks stay."""

    roles: Mapping[str, str]
    keep_marks: bool = False


Values = Mapping[str, Any]
Converter = Callable[[Values, Context], Meaning]


def column(values: Values, name: str, *, optional: bool = False) -> str:
    """Return the text in column `name` or an alias of it; raises Bad when it is absent, null or no text."""
    found = next((values[n] for n in (name, *ALIASES.get(name, ())) if values.get(n) is not None), None)
    if found is None:
        if optional:
            return ""
        raise Bad(f"no column {name!r}" if name not in values else f"column {name!r} is null")
    if isinstance(found, int | float) and not isinstance(found, bool):
        return normal_answer(str(found))
    if not isinstance(found, str):
        raise Bad(f"column {name!r} holds a {type(found).__name__}, not text")
    return found


def exchange(question: str, answer: str, system: str = "") -> list[Message]:
    """Return one question and its answer as messages."""
    asked = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [{"role": "system", "content": system}, *asked] if system.strip() else asked


def normal_answer(text: str) -> str:
    """Return a number in one spelling: `1,080` -> `1080`, `8.0` -> `8`, `$24` -> `24`; other text stripped."""
    bare = text.strip().removeprefix("$").replace(",", "")
    try:
        number = Decimal(bare)
    except InvalidOperation:
        return text.strip()
    if not number.is_finite() or number.adjusted() > 30:
        return text.strip()
    spelt = f"{number:f}"
    return (spelt.rstrip("0").rstrip(".") if "." in spelt else spelt) or "0"


def plain(values: Values, context: Context) -> Meaning:
    """A document: column `text` (or `content`, `raw_content`, `document`)."""
    return Meaning(text=column(values, "text"))


def conversation(values: Values, context: Context) -> Meaning:
    """OpenAI chat: column `messages`, a list of `role` and `content`."""
    return Meaning(messages=messages_of(values.get("messages"), context.roles), answer=given_answer(values))


def sharegpt(values: Values, context: Context) -> Meaning:
    """ShareGPT: column `conversations`, a list of `from` and `value`."""
    return Meaning(messages=messages_of(values.get("conversations"), context.roles))


def turns(values: Values, context: Context) -> Meaning:
    """One-message rows, already grouped by conversation id."""
    return Meaning(messages=messages_of(values.get("turns"), context.roles))


def alpaca(values: Values, context: Context) -> Meaning:
    """Alpaca: `instruction`, `input` (may be empty), `output`; Dolly: `instruction`, `context`, `response`."""
    task, given = column(values, "instruction"), column(values, "input", optional=True).strip()
    asked = f"{task}\n\n{given}" if given else task
    return Meaning(messages=exchange(asked, column(values, "output"), column(values, "system", optional=True)))


def prompt_completion(values: Values, context: Context) -> Meaning:
    """`prompt` and `completion` (or `response`), each a text or a list of messages."""
    asked, said = values.get("prompt"), values.get("completion")
    if isinstance(asked, list):
        answer = said if isinstance(said, list) else [{"role": "assistant", "content": column(values, "completion")}]
        return Meaning(messages=messages_of([*asked, *answer], context.roles))
    return Meaning(messages=exchange(column(values, "prompt"), column(values, "completion")))


def unpaired(values: Values, context: Context) -> Meaning:
    """`prompt`, `completion` and a thumb in `label` (KTO's columns), which is up."""
    liked(values)
    return prompt_completion(values, context)


def question_answer(values: Values, context: Context) -> Meaning:
    """`question` and `answer`, the answer as it is (a number in one spelling)."""
    answer = normal_answer(column(values, "answer"))
    return Meaning(messages=exchange(column(values, "question"), answer), answer=answer)


def gsm8k(values: Values, context: Context) -> Meaning:
    """GSM8K (Cobbe et al. 2021): a worked answer with `<<48/2=24>>` marks that ends in `#### 24`."""
    worked = column(values, "answer")
    final = FINAL.search(worked)
    if final is None:
        raise Bad("the answer does not end in a `#### number` line")
    answer = normal_answer(final[1])
    steps = worked[: final.start()] if context.keep_marks else MARKS.sub("", worked[: final.start()])
    solution = f"{steps.strip()}\nThe answer is {answer}.".strip()
    return Meaning(messages=exchange(column(values, "question"), solution), answer=answer)


def svamp(values: Values, context: Context) -> Meaning:
    """SVAMP (Patel et al. 2021): `Body` and `Question` joined into one, `Equation` as the worked step, `Answer`."""
    body, question = column(values, "Body").strip(), column(values, "Question").strip()
    if body and body[-1] not in ".?!":
        body, question = f"{body.rstrip(',')},", question[:1].lower() + question[1:]
    answer = normal_answer(column(values, "Answer"))
    equation = re.sub(r"(\d)\.0\b", r"\1", column(values, "Equation", optional=True))
    equation = equation.replace("( ", "(").replace(" )", ")").strip()
    equation = equation[1:-1] if equation.startswith("(") and equation.endswith(")") else equation
    step = f"{equation} = {answer}\n" if equation else ""
    return Meaning(messages=exchange(f"{body} {question}", f"{step}The answer is {answer}."), answer=answer)


def transcripts(values: Values, context: Context) -> Meaning:
    """hh-rlhf (Bai et al. 2022): two whole transcripts; their common beginning is the prompt."""
    return common_prefix(transcript(values.get("chosen")), transcript(values.get("rejected")))


def preference(values: Values, context: Context) -> Meaning:
    """`prompt`, `chosen`, `rejected`, texts or messages; without a prompt the common beginning is the prompt."""
    chosen, rejected = values.get("chosen"), values.get("rejected")
    if isinstance(chosen, list) and isinstance(rejected, list):
        better, worse = messages_of(chosen, context.roles), messages_of(rejected, context.roles)
        if better[:1] and better[0]["role"] != "assistant":
            return common_prefix(better, worse)
        return Meaning(prompt=messages_of(values.get("prompt"), context.roles), chosen=better, rejected=worse)
    asked = values.get("prompt", values.get("question"))
    prompt = messages_of(asked, context.roles)
    system = column(values, "system", optional=True)
    prompt = [{"role": "system", "content": system}, *prompt] if system.strip() else prompt
    return Meaning(prompt=prompt, chosen=[answer_in(chosen)], rejected=[answer_in(rejected)])


def openai_preference(values: Values, context: Context) -> Meaning:
    """OpenAI preference format: `input.messages`, `preferred_output`, `non_preferred_output`."""
    asked = values.get("input")
    if not isinstance(asked, dict):
        raise Bad("column 'input' holds no messages")
    return Meaning(
        prompt=messages_of(asked.get("messages"), context.roles),
        chosen=messages_of(values.get("preferred_output"), context.roles),
        rejected=messages_of(values.get("non_preferred_output"), context.roles),
    )


def answer_in(value: Any) -> Message:
    """Return an assistant's message of a preference column."""
    return {"role": "assistant", "content": content_of(value)}


def given_answer(values: Values) -> str | None:
    """Return the `answer` column, one spelling for numbers, or None."""
    return normal_answer(column(values, "answer")) if values.get("answer") is not None else None


def common_prefix(chosen: Sequence[Message], rejected: Sequence[Message]) -> Meaning:
    """Return prompt, chosen and rejected of two conversations that begin alike."""
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    while same and chosen[same - 1]["role"] != "user":
        same -= 1
    return Meaning(prompt=list(chosen[:same]), chosen=list(chosen[same:]), rejected=list(rejected[same:]))


CONVERTERS: dict[Shape, Converter] = {
    "plain": plain,
    "messages": conversation,
    "sharegpt": sharegpt,
    "turns": turns,
    "alpaca": alpaca,
    "prompt_completion": prompt_completion,
    "unpaired": unpaired,
    "question_answer": question_answer,
    "gsm8k": gsm8k,
    "svamp": svamp,
    "transcripts": transcripts,
    "preference": preference,
    "openai_preference": openai_preference,
}
