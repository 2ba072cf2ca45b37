"""Ollama's Modelfile for a bundle: the weights, the template that the model was trained with, what ends a turn.

Ollama's templates are Go's text/template over `.Messages`. The chat template (jinja) is asked how it writes each turn;
a template that cannot be said as what stands before and after each turn is refused, rather than approximated.
https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

import json
from dataclasses import dataclass
from itertools import product

from containers.contract import StageError
from containers.formats import ChatFormat, Message

WEIGHTS = "model.gguf"
TOLD, ASKED, ANSWERED, AGAIN = "zqs", "zqa", "zqb", "zqc"
"""Contents that no template has in its own text."""
QUOTES = '"""'


def modelfile_of(chat: ChatFormat, context: int) -> str:
    """Return the Modelfile beside WEIGHTS, for `context` tokens.

    Raises StageError where Ollama's templates cannot say what the chat template says.
    """
    text = Turns.of(chat).go_template(beginning_of(chat))
    if QUOTES in text:
        raise StageError("the chat template holds three quotes in a row, which a Modelfile cannot: write it by hand")
    stops = [chat.decode([i], control=True) for i in chat.stop_ids]
    lines = [f"FROM ./{WEIGHTS}", f"TEMPLATE {QUOTES}{text}{QUOTES}"]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    return "\n".join([*lines, f"PARAMETER num_ctx {context}", ""])


@dataclass(frozen=True)
class Turns:
    """What a chat template writes around the contents of a chat."""

    head: str
    """Before the first message, where that is no system message."""
    system_head: str | None
    """Before a system message, which comes first; None where the template refuses one."""
    system_tail: str
    user: tuple[str, str]
    """Before and after what a user says."""
    assistant: tuple[str, str]
    answer: str
    """What opens the answer that is wanted."""

    @classmethod
    def of(cls, chat: ChatFormat) -> "Turns":
        """Return the turns of a chat template, proven on every sequence of up to three; raises StageError."""
        one, two, three = said("user", ASKED), said("assistant", ANSWERED), said("user", AGAIN)
        first, second, third = (text_of(chat, part) for part in ([one], [one, two], [one, two, three]))
        opened, _, closed = after(first, second).partition(ANSWERED)
        before, _, tail = after(second, third).partition(AGAIN)
        head = first.removesuffix(f"{before}{ASKED}{tail}")
        try:
            led = text_of(chat, [said("system", TOLD), one])
        except StageError:
            system_head, system_tail = None, ""
        else:
            system_head, _, rest = led.partition(TOLD)
            system_tail = rest.removesuffix(f"{before}{ASKED}{tail}")
        answer = after(first, text_of(chat, [one], open_turn=True))
        found = cls(head, system_head, system_tail, (before, tail), (opened, closed), answer)
        found.prove(chat)
        return found

    def prove(self, chat: ChatFormat) -> None:
        """Raise StageError unless both write the same for every alternation of turns, answer wanted."""
        leads = [[], [said("system", "S, and s.")]] if self.system_head is not None else [[]]
        pairs = [said("user", "What is 2 + 2?"), said("assistant", "Four."), said("user", "Again?\n\nPlease.")]
        for lead, length in product(leads, (1, 3)):
            messages = [*lead, *pairs[:length]]
            if self.written(messages) != text_of(chat, messages, open_turn=True):
                raise StageError(
                    "the chat template does more than put text around each turn, which Ollama's templates cannot say: "
                    "write the Modelfile by hand"
                )

    def written(self, messages: list[Message]) -> str:
        """Return a chat as these turns write it."""
        around = {
            "system": (self.system_head or "", self.system_tail), "user": self.user, "assistant": self.assistant
        }  # fmt: skip
        head = "" if messages[0]["role"] == "system" else self.head
        turns = (f"{around[m['role']][0]}{m['content']}{around[m['role']][1]}" for m in messages)
        return head + "".join(turns) + self.answer

    def go_template(self, beginning: str) -> str:
        """Return the same as a Go template, without `beginning`, which the engine puts there itself."""
        system_head = None if self.system_head is None else self.system_head.removeprefix(beginning)
        led = "" if system_head is None else turn("system", system_head, self.system_tail)
        head = literal(self.head.removeprefix(beginning))
        opening = f'{{{{ if and (eq $i 0) (ne .Role "system") }}}}{head}{{{{ end }}}}' if head else ""
        turns = led + turn("user", *self.user) + turn("assistant", *self.assistant)
        return f"{{{{ range $i, $_ := .Messages }}}}{opening}{turns}{{{{ end }}}}{literal(self.answer)}"


def turn(role: str, before: str, after_it: str) -> str:
    """Return the Go template of one message, if it is of `role`."""
    return f'{{{{ if eq .Role "{role}" }}}}{literal(before)}{{{{ .Content }}}}{literal(after_it)}{{{{ end }}}}'


def literal(text: str) -> str:
    """Return text as an action that writes it: white space around actions is no matter then."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def beginning_of(chat: ChatFormat) -> str:
    """Return the control token that llama.cpp puts before every prompt itself; empty where it puts none."""
    begin = chat.token_id("bos_token")
    return (
        chat.decode([begin], control=True)
        if begin is not None and chat.tokenizer.encode("a").ids[:1] == [begin]
        else ""
    )


def said(role: str, content: str) -> Message:
    """Return a message."""
    return {"role": role, "content": content}


def text_of(chat: ChatFormat, messages: list[Message], *, open_turn: bool = False) -> str:
    """Return a chat as text, control tokens spelt out."""
    return chat.decode(chat.render(messages, open_turn=open_turn).ids, control=True)


def after(beginning: str, whole: str) -> str:
    """Return what `whole` adds to its beginning; raises StageError where it begins otherwise."""
    if not whole.startswith(beginning):
        raise StageError(
            "the chat template writes a turn differently once another follows, which Ollama's templates cannot say: "
            "write the Modelfile by hand"
        )
    return whole.removeprefix(beginning)
