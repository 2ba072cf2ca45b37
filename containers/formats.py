"""How a chat is rendered and what a row of each role holds: one definition each, for training, scoring and serving.

A chat is rendered in pieces. The template is filled with placeholders instead of contents; its own text is encoded
with special tokens recognised, each content is encoded with special tokens spelt out as plain text. So a control
token written literally by a user never becomes one, and the assistant's tokens are known exactly, whatever the
template, without a `{% generation %}` mark in it.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from containers.contract import Dataset, Role, Split, StageError

if TYPE_CHECKING:
    import pyarrow

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": "..."}`"""

MARK = re.compile("(\u2003?)\ue000(\\d+)\ue001(\u2003?)")
"""Stands for a content in the filled template; the em spaces around it are gone where the template trims."""

KEPT = 256
"""Texts of the template, and sequences of roles, whose encoding is remembered."""

COLUMNS: dict[Role, tuple[str, ...]] = {
    "corpus": ("text",),
    "instructions": ("messages",),
    "preferences": ("prompt", "chosen", "rejected"),
    "problems": ("messages", "answer"),
}
"""The columns that every row of a role has; `SIDE_COLUMNS` may be null."""
SIDE_COLUMNS = ("id", "source", "task", "answer")


@dataclass(frozen=True)
class Rendered:
    """Token ids of a conversation and, for each, whether the loss falls on it."""

    ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)

    def extend(self, ids: list[int], *, trained: bool = False) -> None:
        """Append `ids`, all trained or none."""
        self.ids.extend(ids)
        self.trained.extend([trained] * len(ids))


class ChatFormat:
    """A tokenizer and its chat template, loaded without transformers (the served bundle uses it too)."""

    def __init__(self, tokenizer: Any, template: str, names: dict[str, Any]) -> None:
        """Take a `tokenizers.Tokenizer`, the jinja source, and tokenizer_config.json's values."""
        self.tokenizer = tokenizer
        self.template = template
        self.names = names
        self._control = lru_cache(KEPT)(self._encode_control)
        self._skeleton = lru_cache(KEPT)(self._fill_roles)

    @classmethod
    def load(cls, folder: Path) -> "ChatFormat":
        """Load tokenizer.json, tokenizer_config.json and chat_template.jinja; raises StageError when one is absent."""
        from tokenizers import Tokenizer

        missing = [n for n in ("tokenizer.json", "tokenizer_config.json") if not (folder / n).is_file()]
        if missing:
            raise StageError(f"{folder} holds no {missing[0]}: a fast tokenizer is needed beside the weights")
        names = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        jinja = folder / "chat_template.jinja"
        template = jinja.read_text(encoding="utf-8") if jinja.is_file() else names.get("chat_template") or ""
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), template, names)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; a special token written in it stays text."""
        self.tokenizer.encode_special_tokens = True
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_control(self, text: str) -> list[int]:
        """Return the ids of the template's own text, special tokens recognised; the same few texts come again."""
        return list(self._control(text))

    def _encode_control(self, text: str) -> tuple[int, ...]:
        self.tokenizer.encode_special_tokens = False
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Return the text of `ids`, control tokens shown only if asked."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=not control)
        return text

    def token_id(self, name: str) -> int | None:
        """Return the id of a named token (`eos_token`, `bos_token`, `pad_token`), None where there is none."""
        value = self.names.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        found: int | None = self.tokenizer.token_to_id(text) if text else None
        return found

    @cached_property
    def end_of_turn(self) -> int | None:
        """The id of the control token that the template puts after an assistant's answer, white space aside."""
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        tail = self._pieces(turns, open_turn=False)[-1]
        ids = self.encode_control(tail[0]) if tail[1] is None else []
        end = self._end(ids)
        return ids[end - 1] if end else None

    def _end(self, ids: list[int]) -> int:
        """Return how many of the template's `ids` after an answer end the turn: white space, then a control token."""
        for count, i in enumerate(ids, start=1):
            if i in self.control_ids:
                return count
            if self.decode([i]).strip():
                break
        return 0

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids of all special tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a turn or a document, sorted."""
        return tuple(sorted({i for i in (self.token_id("eos_token"), self.end_of_turn) if i is not None}))

    def render(
        self, messages: Sequence[Message], *, open_turn: bool = False, tools: Sequence[Any] | None = None
    ) -> Rendered:
        """Return the conversation's ids; loss on assistant contents and the end-of-turn token after each.

        `open_turn` ends with the assistant's header, for an answer to be generated; `tools` are functions as OpenAI's
        API describes them, which the template writes out as its own text: control tokens in them would be heeded.
        """
        rendered = Rendered()
        answered = False
        for text, role in self._pieces(messages, open_turn=open_turn, tools=tools):
            if role:
                answered = role == "assistant"
                rendered.extend(self.encode(text), trained=answered)
                continue
            ids = self.encode_control(text)
            end = self._end(ids) if answered else 0
            rendered.extend(ids[:end], trained=True)
            rendered.extend(ids[end:])
            answered = False
        return rendered

    def _pieces(
        self, messages: Sequence[Message], *, open_turn: bool, tools: Sequence[Any] | None = None
    ) -> list[tuple[str, str | None]]:
        """Return the rendered template in pieces: (text, None) of its own, (content, role) of a message."""
        if tools or any(message.keys() != {"role", "content"} for message in messages):
            filled = self._fill(messages, open_turn, tools)
        else:
            filled = self._skeleton(tuple(message["role"] for message in messages), open_turn)
        parts = MARK.split(filled)
        pieces: list[tuple[str, str | None]] = [(parts[0], None)]
        for left, index, right, own in zip(*(parts[n::4] for n in (1, 2, 3, 4)), strict=True):
            message = messages[int(index)]
            content = message["content"] if left else message["content"].lstrip()
            pieces += [(content if right else content.rstrip(), message["role"]), (own, None)]
        return [(text, role) for text, role in pieces if text or role]

    def _fill_roles(self, roles: tuple[str, ...], open_turn: bool) -> str:
        """Return the filled template of turns of a role and a content alone: what they say makes no difference."""
        return self._fill([{"role": role, "content": ""} for role in roles], open_turn, None)

    def _fill(self, messages: Sequence[Message], open_turn: bool, tools: Sequence[Any] | None) -> str:
        """Return the filled template, with a mark for each content."""
        from jinja2 import TemplateError

        marked = [{**m, "content": f"\u2003\ue000{i}\ue001\u2003"} for i, m in enumerate(messages)]

        tokens = {name: self.names.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        words = {n: (v["content"] if isinstance(v, dict) else v) or "" for n, v in tokens.items()}
        try:
            given = {"tools": list(tools)} if tools else {}
            text: str = self._jinja.render(messages=marked, add_generation_prompt=open_turn, **given, **words)
        except TemplateError as error:
            raise StageError(f"the chat template does not render: {error}") from error
        return text

    @cached_property
    def _jinja(self) -> Any:
        """The compiled template; raises StageError when there is none or it is not jinja."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        if not self.template:
            raise StageError("the tokenizer has no chat template: put chat_template.jinja beside tokenizer.json")

        def refuse(message: str) -> None:
            raise StageError(f"the chat template refuses this conversation: {message}")

        sandbox = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        sandbox.globals["raise_exception"] = refuse
        sandbox.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
        try:
            return sandbox.from_string(self.template)
        except TemplateError as error:
            raise StageError(f"the chat template is not jinja: {error}") from error


def identity_of(folder: Path) -> dict[str, Any]:
    """Return the `tokenizer`, `template` and `stop_ids` fields of a Speaker artifact from the files in `folder`."""
    chat = ChatFormat.load(folder)
    vocabulary = chat.tokenizer.to_str()
    return {
        "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "template": hashlib.sha256(chat.template.encode()).hexdigest(),
        "stop_ids": chat.stop_ids if chat.template else (chat.token_id("eos_token"),),
    }


def schema_of(role: Role) -> "pyarrow.Schema":
    """Return the Arrow schema of a role: its columns, then id, source, task and answer (nullable)."""
    import pyarrow as pa

    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    types = {"messages": turns, "prompt": turns, "chosen": turns, "rejected": turns}
    names = [*COLUMNS[role], *(n for n in SIDE_COLUMNS if n not in COLUMNS[role])]
    return pa.schema([(name, types.get(name, pa.string())) for name in names])


def rows_of(dataset: Dataset, split: Split) -> "pyarrow.Table":
    """Return the whole split as one Arrow table (memory-mapped shards, in name order)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = sorted((dataset.path / split).glob("*.parquet"))
    tables = [pq.read_table(shard, memory_map=True) for shard in shards]
    return pa.concat_tables(tables) if tables else schema_of(dataset.role).empty_table()
