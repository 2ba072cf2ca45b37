"""Conversations from what people write: message lists, speakers under other names, whole transcripts, grouped rows."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from containers.data.records import Bad, Record, Reject
from containers.formats import Message

SPEAKERS = {
    "human": "user", "user": "user", "prompter": "user", "question": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip
TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant):")
SPOKEN = {"system": "System", "user": "User", "assistant": "Assistant"}


def speaker(name: Any, roles: Mapping[str, str]) -> str:
    """Return user, assistant or system for a speaker's name; raises Bad with the way to map it."""
    found = roles.get(str(name)) or SPEAKERS.get(str(name).strip().lower())
    if found is None:
        raise Bad(f"unknown speaker {str(name)[:40]!r}: map it with `roles: {{{str(name)[:40]}: assistant}}`")
    return found


def content_of(value: Any) -> str:
    """Return a message's text; a list of typed parts is joined when all of them are text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value):
        return "\n".join(part["text"] for part in value)
    raise Bad("a message holds no text")


def messages_of(turns: Any, roles: Mapping[str, str]) -> list[Message]:
    """Return messages from `role`/`content` or `from`/`value` turns; raises Bad."""
    if isinstance(turns, str):
        return [{"role": "user", "content": turns}]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Bad("the conversation is not a list of messages")
    found = []
    for turn in turns:
        name = turn.get("role", turn.get("from"))
        content = turn["content"] if "content" in turn else turn.get("value")
        found.append({"role": speaker(name, roles), "content": content_of(content)})
    return found


def transcript(text: Any) -> list[Message]:
    """Return the turns of a transcript whose paragraphs begin with Human: or Assistant: (hh-rlhf; Bai et al. 2022)."""
    parts = TRANSCRIPT.split(text) if isinstance(text, str) else []
    if len(parts) < 3 or parts[0].strip():
        raise Bad("not a transcript of `Human:` and `Assistant:` turns")
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [{"role": SPEAKERS[name.lower()], "content": content.strip()} for name, content in pairs]


def tidied(messages: list[Message], *, answered: bool) -> list[Message]:
    """Return a conversation in which user and assistant take turns: same speakers joined, contents stripped.

    `answered` demands that it ends with the assistant; questions after the last answer are dropped. Raises Bad.
    """
    found: list[Message] = []
    for message in messages:
        content = message["content"].strip()
        if not content:
            raise Bad(f"empty {message['role']} message")
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {"role": message["role"], "content": f"{found[-1]['content']}\n\n{content}"}
        else:
            found.append({"role": message["role"], "content": content})
    while answered and found and found[-1]["role"] != "assistant":
        found.pop()
    body = found[1:] if found and found[0]["role"] == "system" else found
    if not body or (answered and len(body) < 2):
        raise Bad("no answer of the assistant in it" if answered else "no question of the user in it")
    if body[0]["role"] != "user":
        raise Bad("the conversation does not begin with the user")
    if any(message["role"] == "system" for message in body):
        raise Bad("a system message stands in the middle of the conversation")
    return found


def grouped(records: Iterable[Record | Reject], key: str) -> Iterator[Record | Reject]:
    """Yield one record of `turns` per conversation id in `key`, in order of first sight (held in memory)."""
    found: dict[Any, Record] = {}
    for item in records:
        if isinstance(item, Reject):
            yield item
        elif item.values.get(key) is None:
            yield Reject(item.file, item.line, f"no conversation id in column {key!r}")
        else:
            opened = found.setdefault(str(item.values[key]), Record(item.file, item.line, {"turns": []}))
            opened.values["turns"].append(item.values)
    yield from found.values()


def spoken(messages: Iterable[Message]) -> str:
    """Return a conversation as plain text for a corpus: `User: ...` and `Assistant: ...` paragraphs."""
    return "\n\n".join(f"{SPOKEN[m['role']]}: {m['content']}" for m in messages)
