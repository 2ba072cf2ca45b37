"""How a tokenizer cuts text before it merges, by llama.cpp's name for it: what has no name there cannot be served."""

import json
from pathlib import Path
from typing import Any

from containers.contract import StageError

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}": "qwen2",
    rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}": "llama-bpe",
}
"""The regex before merging -> llama.cpp's name for it. These two differ in how digits stand together."""


def split_of(folder: Path) -> str:
    """Return llama.cpp's `pre` of the tokenizer in `folder`; raises StageError for one that it would read otherwise."""
    file = folder / "tokenizer.json"
    parts = json.loads(file.read_text(encoding="utf-8"))
    model = parts["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        kind = "SentencePiece" if model.get("byte_fallback") else model["type"]
        raise StageError(f"{file}: only a byte-level BPE can be converted and served, and this is {kind}")
    steps = steps_of(parts.get("pre_tokenizer"))
    name = name_of(steps)
    if name is None:
        kinds = ", ".join(step["type"] for step in steps) or "none"
        raise StageError(
            f"{file}: llama.cpp would split text unlike this pre_tokenizer ({kinds}), so it could not be served; "
            "use a checkpoint that splits text as Qwen2, Llama 3, GPT-2 or SmolLM does"
        )
    return name


def steps_of(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the steps of a tokenizer.json's `pre_tokenizer`, in order."""
    one = [pre_tokenizer] if pre_tokenizer else []
    return (pre_tokenizer or {}).get("pretokenizers") or one


def name_of(steps: list[dict[str, Any]]) -> str | None:
    """Return llama.cpp's name for these steps, None where it has none."""
    kinds = [step["type"] for step in steps]
    plain = kinds[-1:] == ["ByteLevel"] and not steps[-1].get("add_prefix_space")
    own_regex = plain and steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and own_regex:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and own_regex and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and plain and not own_regex:
        regex = steps[0]["pattern"].get("Regex", "")
        if steps[0].get("behavior") == "Isolated" and not steps[0].get("invert"):
            return SPLITS.get(regex)
    return None
