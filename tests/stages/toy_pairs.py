"""Preferences that can be learnt: the full sentence is better than the curt one; sometimes it is the shorter one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from containers.contract import Dataset, Frozen
from containers.formats import schema_of
from tests.by_hand import ROOT, events, placed
from tests.stages.toy_chat import WORDS, question

HEAD = [{"role": "user", "content": "Do you count by six?"}, {"role": "assistant", "content": "I do."}]


def preference(i: int) -> dict[str, Any]:
    """Return a row; every third has turns before its question, every fourth a longer rejected answer."""
    prompt = [*(HEAD if i % 3 == 0 else []), {"role": "user", "content": question(i)}]
    worse = f"{WORDS[i % 6]}, {WORDS[i % 6]}, {WORDS[i % 6]} and so on and on." if i % 4 == 0 else WORDS[i % 6]
    better = f"It is {WORDS[i % 6]}."
    return {
        "prompt": prompt, "chosen": [{"role": "assistant", "content": better}],
        "rejected": [{"role": "assistant", "content": worse}], "id": f"row-{i}", "task": f"colour.{i % 2}",
    }  # fmt: skip


def preferences(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [preference(i) for i in range(first, first + count)]


def write_pairs(folder: Path, train: list[Any], test: list[Any] | None = None) -> Dataset:
    """Write a preferences data set of these rows; the test rows serve as validation rows too."""
    splits = {"train": train, "validation": test or [], "test": test or []}
    schema = schema_of("preferences")
    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        filled = [dict.fromkeys(schema.names) | row for row in rows]
        pq.write_table(pa.Table.from_pylist(filled, schema=schema), folder / split / "part-0.parquet")
    return Dataset.of(folder, role="preferences", rows={s: len(r) for s, r in splits.items()})


def said(row: dict[str, Any], side: str, text: str) -> dict[str, Any]:
    """Return a row with another answer."""
    return row | {side: [{"role": "assistant", "content": text}]}


def curve(folder: Path, name: str) -> list[float]:
    return [e["values"][name] for e in events(folder) if e["event"] == "metrics" and name in e["values"]]


def card_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "outputs/card/card.json").read_text())
    return values


def kill_after_checkpoint(folder: Path, word: str, config: Any, inputs: Frozen, step: int) -> None:
    """Start the stage and SIGKILL it once the checkpoint of `step` is committed."""
    kill_after(f"work/checkpoint-{step}/COMMIT.json", folder, word, config, inputs)


def kill_after(marker: str, folder: Path, word: str, config: Any, inputs: Frozen) -> None:
    """Start the stage and SIGKILL it once it has written `marker` to its folder."""
    folder.mkdir()
    request = {"stage": word, "label": "", "fingerprint": "0" * 64, "code": "",
               "config": config.model_dump(mode="json"), "inputs": placed(inputs, folder)}  # fmt: skip
    (folder / "request.json").write_text(json.dumps(request))
    stage = subprocess.Popen([sys.executable, "-m", "containers.entrypoint", str(folder)], cwd=ROOT)
    while not (folder / marker).is_file():
        assert stage.poll() is None, "the stage ended before it could be killed"
        time.sleep(0.01)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    assert not (folder / "result.json").exists()
