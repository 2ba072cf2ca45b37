"""The Hugging Face tokenizer folder: what AutoTokenizer, the GGUF writer and `containers.formats` read."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from containers.tokenizer.bpe import END_OF_TEXT, END_OF_TURN, SPECIAL, START_OF_TURN

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def save(bpe: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja."""
    bpe.save(str(folder / "tokenizer.json"))
    named = {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    extra = {"additional_special_tokens": [START_OF_TURN, END_OF_TURN]}
    added = {
        str(bpe.token_to_id(name)): {
            "content": name, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True,
        }
        for name in SPECIAL
    }  # fmt: skip
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "clean_up_tokenization_spaces": False,
        "bos_token": None,
        "unk_token": None,
        "errors": "replace",
    }
    write(folder / "tokenizer_config.json", {**settings, **named, **extra})
    write(folder / "special_tokens_map.json", {**named, **extra})
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")


def write(file: Path, values: dict[str, Any]) -> None:
    """Write `values` as JSON with sorted keys."""
    file.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
