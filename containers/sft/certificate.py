"""The mask certificate: proof, before anything is trained, of which tokens the loss falls on.

One per data set x template x tokenizer. Each claim is checked against something that did not make the mask: the text
of the assistant's messages, and the conversation as transformers itself renders it. `mask.html` shows trained tokens
in colour, `certificate.json` holds the claims; training refuses to start when one of them does not hold.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from transformers import AutoTokenizer

from containers.contract import Dataset, Speaker, StageError
from containers.formats import ChatFormat, Rendered
from containers.out import Out
from containers.sft.lessons import Lessons
from containers.sft.page import page_of

COMPARED, SHOWN = 200, 24


@dataclass(frozen=True)
class Claim:
    """One thing that must hold, whether it does, and what was seen."""

    name: str
    holds: bool
    seen: str


class Subject(Protocol):
    """What a certificate is of: the lessons, and who learns them (only its tokenizer is read)."""

    @property
    def base(self) -> Speaker:
        """A model, or its tokenizer alone."""

    @property
    def instructions(self) -> Dataset:
        """The lessons."""


def certify(lessons: Lessons, chat: ChatFormat, subject: Subject, out: Out) -> dict[str, Any]:
    """Write mask.html and certificate.json to the card and return the latter; raises StageError when a claim fails."""
    record = proved(lessons, chat, subject, out)
    broken = broken_in(record)
    if broken:
        raise StageError("the mask certificate does not hold, nothing was trained. " + "; ".join(broken))
    return record


def proved(lessons: Lessons, chat: ChatFormat, subject: Subject, out: Out) -> dict[str, Any]:
    """Write the certificate, whether it holds or not; raises StageError when there is nothing to train on."""
    if not lessons.kept:
        raise StageError(
            f"no conversation has a trained token within max_length ({lessons.dropped_empty} dropped): each needs an "
            "assistant message; raise max_length, or map the speakers' names with `roles:` in the data source"
        )
    drifted, different = compared(lessons, chat, subject.base)
    claims = [*claims_of(lessons, chat), *drifted]
    record = {
        "dataset": subject.instructions.digest,
        "tokenizer": subject.base.tokenizer,
        "template": subject.base.template,
        "conversations": len(lessons.kept),
        "tokens": sum(len(lesson.ids) for lesson in lessons.kept),
        "trained_tokens": sum(sum(lesson.trained) for lesson in lessons.kept),
        "truncated": lessons.truncated,
        "dropped_empty": lessons.dropped_empty,
        "tokens_unlike_transformers": different,
        "claims": [asdict(claim) for claim in claims],
    }
    (out.card / "certificate.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (out.card / "mask.html").write_text(page_of(record, [spans_of(x, chat) for x in spread(lessons.kept)]), "utf-8")
    if lessons.truncated or lessons.dropped_empty:
        out.say(
            f"{lessons.truncated} conversations are cut to max_length and lose their end, "
            f"{lessons.dropped_empty} have no answer within it and are dropped",
            level="warning",
        )
    return record


def broken_in(record: dict[str, Any]) -> list[str]:
    """Return each claim of a certificate that does not hold, with what was seen."""
    return [f"{claim['name']}: {claim['seen']}" for claim in record["claims"] if not claim["holds"]]


def claims_of(lessons: Lessons, chat: ChatFormat) -> list[Claim]:
    """Return what must hold of the mask, checked against the assistant's messages themselves."""
    foreign, unended, whole = "", 0, 0
    for index, (lesson, messages) in enumerate(zip(lessons.kept, lessons.conversations, strict=True)):
        answers = "".join(m["content"] for m in messages if m["role"] == "assistant")
        taught = [i for i, trained in zip(lesson.ids, lesson.trained, strict=True) if trained]
        text = chat.decode([i for i in taught if i not in chat.control_ids])
        if not foreign and not squeezed(answers).startswith(squeezed(text).removesuffix("\ufffd")):
            foreign = f"conversation {index} trains {text[:80]!r}, which no assistant message says"
        ends = sum(i == chat.end_of_turn for i in taught)
        whole += sum(m["role"] == "assistant" for m in messages)
        unended += ends == 0
    cut = lessons.truncated
    trained = sum(sum(lesson.trained) for lesson in lessons.kept)
    end = chat.end_of_turn
    named = "the template puts no control token after an answer, so the model would never learn to stop"
    return [
        Claim("assistant only", not foreign, foreign or "every trained token is the assistant's"),
        Claim("not empty", trained > 0, f"{trained} trained tokens"),
        Claim(
            "end of turn trained",
            end is not None and unended <= cut,
            named if end is None else f"{len(lessons.kept) - unended} of {len(lessons.kept)} conversations train "
            f"{chat.decode([end], control=True)!r}; {cut} are cut before their end",
        ),
    ]  # fmt: skip


def squeezed(text: str) -> str:
    """Return `text` without white space, which templates trim."""
    return "".join(text.split())


def compared(lessons: Lessons, chat: ChatFormat, base: Speaker) -> tuple[list[Claim], int]:
    """Compare a sample with `apply_chat_template`: (claim that the text is the same, conversations with other ids).

    Equal text in other ids is no error: a control token that a user writes stays text here, and a piece of the template
    and a content are never merged into one token.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    drift, different = "", 0
    sample = spread(list(zip(lessons.kept, lessons.conversations, strict=True)), COMPARED)
    for lesson, messages in sample:
        theirs = tokenizer.apply_chat_template(list(messages), tokenize=False)
        ids = tokenizer(theirs, add_special_tokens=False)["input_ids"]
        different += ids[: len(lesson.ids)] != lesson.ids
        ours = chat.decode(lesson.ids, control=True)
        if not drift and not theirs.startswith(ours.removesuffix("\ufffd")):
            at = next(
                i for i, pair in enumerate(zip(ours, theirs + "\0" * len(ours), strict=False)) if len(set(pair)) > 1
            )
            drift = f"{ours[max(0, at - 20) : at + 40]!r} here, {theirs[max(0, at - 20) : at + 40]!r} in transformers"
    seen = drift or f"{len(sample)} conversations compared, {different} with other ids for the same text"
    return [Claim("same text as apply_chat_template", not drift, seen)], different


def spread(items: Sequence[Any], count: int = SHOWN) -> list[Any]:
    """Return up to `count` items, evenly spaced, the first among them."""
    step = max(1, len(items) // count)
    return list(items[::step])[:count]


def spans_of(lesson: Rendered, chat: ChatFormat) -> list[tuple[str, bool, bool]]:
    """Return (text, trained, is a control token) for each run of equal tokens."""
    spans: list[tuple[list[int], bool, bool]] = []
    for i, trained in zip(lesson.ids, lesson.trained, strict=True):
        control = i in chat.control_ids
        if spans and spans[-1][1:] == (trained, control) and not control:
            spans[-1][0].append(i)
        else:
            spans.append(([i], trained, control))
    return [(chat.decode(ids, control=True), trained, control) for ids, trained, control in spans]
