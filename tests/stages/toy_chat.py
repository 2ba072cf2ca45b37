"""Small real parts for the stages that train a chat: a tokenizer with a template, a random model, a data set."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from containers.contract import Dataset, Model
from containers.formats import identity_of, schema_of

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("red", "green", "blue", "black", "white", "brown")


def write_tokenizer(folder: Path, template: str = CHATML, size: int = 400, texts: list[str] | None = None) -> None:
    """Write a byte-level BPE with ChatML control tokens, learnt from `texts`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[AddedToken(text, special=True) for text in SPECIAL],
    )  # fmt: skip
    tokenizer.train_from_iterator(texts or [answer(i) + question(i) for i in range(60)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "chat_template.jinja").write_text(template)


def write_model(
    folder: Path, shape: str = "llama", template: str = CHATML, texts: list[str] | None = None, **changes: Any
) -> Model:
    """Write a random model (`llama` or `qwen2`, 100k parameters unless changed) with its tokenizer."""
    write_tokenizer(folder, template, changes.get("vocab_size", 400), texts)
    size = {
        "vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
    } | changes  # fmt: skip
    torch.manual_seed(0)
    config = AutoConfig.for_model(shape, eos_token_id=2, bos_token_id=None, pad_token_id=0, **size)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return Model.of(folder, **identity_of(folder))


def question(i: int) -> str:
    return f"Which colour is number {i % 100}?"


def answer(i: int) -> str:
    return f"Number {i % 100} is {WORDS[i % 6]}, as all who count by six know." if i % 2 else f"It is {WORDS[i % 6]}."


def chats(count: int, first: int = 0) -> list[list[dict[str, str]]]:
    """Return conversations that can be learnt: a number's colour."""
    return [
        [{"role": "user", "content": question(i)}, {"role": "assistant", "content": answer(i)}]
        for i in range(first, first + count)
    ]


def write_chats(folder: Path, train: list[Any], validation: list[Any] | None = None) -> Dataset:
    """Write an instructions data set of these conversations."""
    splits = {"train": train, "validation": validation or []}
    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        schema = schema_of("instructions")
        filled = [dict.fromkeys(schema.names) | {"messages": row} for row in rows]
        pq.write_table(pa.Table.from_pylist(filled, schema=schema), folder / split / "part-0.parquet")
    return Dataset.of(folder, role="instructions", rows={s: len(r) for s, r in splits.items()})
