"""Fit what a record means to the one schema of a role, tidied and normalised, or say why it cannot be."""

import re
import unicodedata
from collections import Counter
from typing import Any

from containers.contract import Role
from containers.data.conversations import spoken, tidied
from containers.data.records import Bad
from containers.data.shapes import Meaning
from containers.formats import Message

ENDINGS = re.compile(r"(?:\s*(?:<\|endoftext\|>|<\|im_end\|>|<\|eot_id\|>|<\|end_of_text\|>|</s>))+\s*$")
"""Control tokens that other people's exports leave at the end of a text. Elsewhere they stay, as harmless text."""
SURROGATE = re.compile("[\ud800-\udfff]")

Row = dict[str, Any]
"""A row in the schema of its role (`containers.formats.schema_of`)."""


class Fitter:
    """Turns meanings into rows of one role, and counts what it changed."""

    def __init__(self, role: Role) -> None:
        """Begin with all counts at zero."""
        self.role = role
        self.counts: Counter[str] = Counter()

    def fit(self, meaning: Meaning) -> Row:
        """Return the row; raises Bad."""
        if self.role == "corpus":
            text = meaning.text if meaning.text is not None else spoken(meaning.messages or [])
            return {"text": self.text(text) or self.refuse("empty text")}
        if self.role == "preferences":
            return self.pair(meaning)
        messages = self.conversation(meaning.messages or [], answered=self.role == "instructions")
        if self.role == "instructions":
            return {"messages": messages}
        if not meaning.answer:
            raise Bad("no answer")
        return {"messages": messages, "answer": self.text(meaning.answer)}

    def pair(self, meaning: Meaning) -> Row:
        """Return a preference row; raises Bad when the two answers cannot be compared."""
        prompt = self.conversation(meaning.prompt or [], answered=False)
        if prompt[-1]["role"] != "user":
            raise Bad("the prompt does not end with the user")
        chosen, rejected = (self.answers(side or []) for side in (meaning.chosen, meaning.rejected))
        if chosen == rejected:
            raise Bad("chosen equals rejected")
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    def answers(self, messages: list[Message]) -> list[Message]:
        """Return what follows a prompt: it begins and ends with the assistant; raises Bad."""
        lead = {"role": "user", "content": "."}
        return self.conversation([lead, *messages], answered=True)[1:]

    def conversation(self, messages: list[Message], *, answered: bool) -> list[Message]:
        """Return tidied, normalised messages; raises Bad."""
        clean = [{"role": m["role"], "content": self.text(m["content"])} for m in messages]
        found = tidied(clean, answered=answered)
        self.counts["turns_joined_or_dropped"] += len(messages) != len(found)
        return found

    def text(self, text: str) -> str:
        """Return `text` in NFC with Unix line ends, stripped, without control tokens at its end; raises Bad."""
        if not text.isascii():
            if SURROGATE.search(text):
                raise Bad("half a surrogate pair (broken UTF-16 escape)")
            if not unicodedata.is_normalized("NFC", text):
                text = unicodedata.normalize("NFC", text)
                self.counts["unicode_normalised"] += 1
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        stripped = text.strip()
        if stripped.endswith(("|>", "</s>")) and ENDINGS.search(stripped):
            stripped = ENDINGS.sub("", stripped).strip()
            self.counts["control_token_endings_removed"] += 1
        return stripped

    def refuse(self, reason: str) -> str:
        """Raise Bad; typed as text, so that it can stand behind `or`."""
        raise Bad(reason)


def texts_of(row: Row) -> list[str]:
    """Return every text of a row, in order."""
    if "text" in row:
        return [row["text"]]
    columns = ("prompt", "chosen", "rejected") if "prompt" in row else ("messages",)
    return [message["content"] for name in columns for message in row[name]]


def question_of(row: Row) -> str:
    """Return what a row asks: its first user message; a document is all question. The split follows it."""
    if "text" in row:
        return str(row["text"])
    turns = row["prompt"] if "prompt" in row else row["messages"]
    return next((turn["content"] for turn in turns if turn["role"] == "user"), "")
