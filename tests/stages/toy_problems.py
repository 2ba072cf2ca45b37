"""A policy that half knows how to answer, and problems to practise on: enough for a reward to find what it pays for."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from containers.contract import Dataset, Model
from containers.formats import schema_of
from containers.out import Out
from containers.sft.contract import STAGE, SFTInputs
from containers.sft.main import run
from tests.stages.toy_chat import WORDS, question, write_chats, write_model

SHAPE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "max_position_embeddings": 96}


def answer_of(i: int) -> str:
    return WORDS[i % 2]


def write_policy(folder: Path) -> Model:
    """Return a model that has learnt to name a colour and stop, and not which."""
    base = write_model(folder / "base", **SHAPE)
    taught = [
        [{"role": "user", "content": question(i)}, {"role": "assistant", "content": f"It is {WORDS[n]}."}]
        for i in range(48)
        for n in range(3)
    ]
    data = write_chats(folder / "chats", taught)
    config = TypeAdapter(STAGE.config).validate_python({
        "method": "full", "learning_rate": 1.5e-2, "epochs": 8, "batch_size": 16, "max_length": 96, "threads": 1,
        "device": "cpu", "precision": "fp32", "checkpoint_every": 1000, "warmup_steps": 4,
    })  # fmt: skip
    made = run(config, SFTInputs(base=base, instructions=data), Out(folder / "sft")).model
    assert isinstance(made, Model)
    return made


def write_problems(folder: Path, count: int = 48, held_out: int = 16) -> Dataset:
    """Write problems whose answer is one of two colours, by the parity of a number."""
    rows = {"train": range(count), "validation": range(count, count + held_out), "test": range(100 - held_out, 100)}
    schema = schema_of("problems")
    for split, numbers in rows.items():
        (folder / split).mkdir(parents=True)
        filled: list[dict[str, Any]] = [
            dict.fromkeys(schema.names)
            | {
                "messages": [{"role": "user", "content": question(i)}],
                "answer": answer_of(0),
                "task": f"colour.{i % 2}",
            }
            for i in numbers
        ]
        pq.write_table(pa.Table.from_pylist(filled, schema=schema), folder / split / "part-0.parquet")
    return Dataset.of(folder, role="problems", rows={split: len(numbers) for split, numbers in rows.items()})
