"""A byte-level BPE in llama.cpp's words: tokens, types, merges, the split before merging, special ids."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from containers.formats import ChatFormat
from containers.pre_tokenizers import split_of


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to know of a tokenizer."""

    chat: ChatFormat
    size: int
    """Rows of the embedding; ids beyond the tokenizer's are written as unused."""
    model: dict[str, Any]
    """The `model` part of tokenizer.json."""
    split: str
    """llama.cpp's `pre`."""

    @classmethod
    def of(cls, folder: Path, size: int) -> "Vocabulary":
        """Read the tokenizer in `folder`; raises StageError for one that llama.cpp would read differently."""
        chat = ChatFormat.load(folder)
        parts = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return cls(chat, size, parts["model"], split_of(folder))

    def describe(self, writer: GGUFWriter) -> None:
        """Write everything that `tokenizer.ggml.*` holds."""
        tokens, types = self.tokens()
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.split)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        merges = self.model["merges"]
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
        end, begin, pad = (self.chat.token_id(f"{name}_token") for name in ("eos", "bos", "pad"))
        turn = self.chat.end_of_turn if self.chat.template else None
        # llama.cpp takes id 11 for a BPE's beginning where none is named; Qwen's files name the end of text there too.
        for add, token in (
            (writer.add_bos_token_id, end if begin is None else begin),
            (writer.add_eos_token_id, end),
            (writer.add_eot_token_id, turn),
            (writer.add_pad_token_id, end if pad is None else pad),
        ):
            if token is not None:
                add(token)
        writer.add_add_bos_token(self.adds_bos(begin))
        if self.chat.template:
            writer.add_chat_template(self.chat.template)

    def tokens(self) -> tuple[list[str], list[TokenType]]:
        """Return every token as llama.cpp spells it, and its type."""
        spelt = {i: text for text, i in self.model["vocab"].items()}
        added = self.chat.tokenizer.get_added_tokens_decoder()
        tokens, types = [], []
        for i in range(self.size):
            if i in added:
                tokens.append(added[i].content)
                types.append(TokenType.CONTROL if added[i].special else TokenType.USER_DEFINED)
            else:
                tokens.append(spelt.get(i, f"[PAD{i}]"))
                types.append(TokenType.NORMAL if i in spelt else TokenType.UNUSED)
        return tokens, types

    def adds_bos(self, begin: int | None) -> bool:
        """Tell whether the tokenizer puts a beginning before every text."""
        ids = self.chat.tokenizer.encode("a").ids
        return begin is not None and ids[:1] == [begin]
