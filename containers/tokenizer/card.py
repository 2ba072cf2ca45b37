"""What the report shows of a tokenizer: how well it compresses unseen text, its longest tokens, sample splits."""

from itertools import islice
from typing import Any

import pyarrow.parquet as pq

from containers.contract import Dataset
from containers.formats import ChatFormat

SAMPLES = (
    "What is 2+2?",
    "If a train travels 60 km in 1 hour, how long will it take to travel 180 km?",
    "The contract's clause 12.3 isn't binding.",
    "def area(r):\n    return 3.14 * r ** 2",
    "Gr\u00fc\u00dfe, \u4f60\u597d, \U0001f6a2!",
)
MEASURED_ROWS, CONTROLS_SHOWN, LONGEST_SHOWN, SAMPLE_CHARACTERS = 2_000, 8, 40, 200


def describe(chat: ChatFormat, corpus: Dataset) -> dict[str, Any]:
    """Return the card's values, measured on up to 2,000 documents of the validation split (train if it is empty)."""
    split, texts = held_out(corpus)
    lengths = [len(chat.encode(text)) for text in texts]
    size = sum(len(text.encode()) for text in texts)
    vocabulary = chat.tokenizer.get_vocab_size()
    decoded = (chat.decode([i]) for i in range(vocabulary) if i not in chat.control_ids)
    longest = sorted((text for text in decoded if "\ufffd" not in text), key=lambda text: (-len(text), text))
    samples = [*SAMPLES, *(text[:SAMPLE_CHARACTERS] for text in texts[:3])]
    return {
        "vocab_size": vocabulary,
        "bytes_per_token": size / max(1, sum(lengths)),
        "measured_on": f"{len(texts):,} documents of the {split} split",
        "tokens_per_document": sum(lengths) / max(1, len(lengths)),
        "special_tokens": {chat.decode([i], control=True): i for i in sorted(chat.control_ids)[:CONTROLS_SHOWN]},
        "stop_ids": list(chat.stop_ids),
        "longest_tokens": longest[:LONGEST_SHOWN],
        "splits": [{"text": text, "tokens": [chat.decode([i]) for i in chat.encode(text)]} for text in samples],
        "chat_template": chat.template,
    }


def held_out(corpus: Dataset) -> tuple[str, list[str]]:
    """Return (split, texts) that the tokenizer is measured on."""
    split = "validation" if corpus.rows.get("validation") else "train"
    shards = sorted((corpus.path / split).glob("*.parquet"))
    batches = (b for shard in shards for b in pq.ParquetFile(shard).iter_batches(MEASURED_ROWS, columns=["text"]))
    texts = (text for batch in batches for text in batch.column(0).to_pylist())
    return split, list(islice(texts, MEASURED_ROWS))
