"""`slipway check`: the data and the mask certificate, by the command, before a model is trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.stages.toy_chat import CHATML, write_model

ROOT = Path(__file__).resolve().parents[2]
LESSONS = {"sources": [{"builtin": "desk", "max_rows": 60}], "pii": "off"}
FROM_TEXT = {
    "description": "for tests",
    "data": {"corpus": {"sources": [{"builtin": "stories", "max_rows": 60}], "pii": "off"}, "instructions": LESSONS},
    "tokenizer": {"vocab_size": 400},
    "sft": {"method": "full", "max_length": 128},
}


def checked(home: Path, recipe: dict[str, object], *overrides: str) -> "subprocess.CompletedProcess[str]":
    file = home.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe))
    environment = {**os.environ, "SLIPWAY_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    program = (
        "import sys; from flows.checking import check_recipe; from flows.failures import explained\n"
        "with explained(): check_recipe(sys.argv[1], sys.argv[2:])\n"
        "print('heavy:', sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(file), *overrides]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=home.parent)


def adapting(folder: Path) -> dict[str, object]:
    data = {"instructions": LESSONS}
    start = {"path": str(folder)}
    sft = {"method": "lora", "max_length": 128}
    return {"description": "for tests", "flow": "adapt_model", "checkpoint": start, "data": data, "sft": sft}


def test_the_certificate_is_shown_with_a_tokenizer_of_the_recipes_own_corpus(tmp_path: Path) -> None:
    done = checked(tmp_path / "home", FROM_TEXT)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout.split("mask certificate")[1]
    assert "conversations" in shown and "tokens trained (" in shown and "cut to sft.max_length" in shown
    assert shown.count("holds    ") == 4 and "holds    assistant only" in shown
    page = next(line for line in shown.splitlines() if line.startswith("page: file://"))
    assert "Mask certificate" in Path(page.removeprefix("page: file://")).read_text()
    assert "heavy: []" in done.stdout


def test_a_checkpoints_own_template_is_certified_and_its_weights_are_not_read(tmp_path: Path) -> None:
    write_model(tmp_path / "base", template=CHATML)
    done = checked(tmp_path / "home", adapting(tmp_path / "base"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("holds    ") == 4 and "heavy: []" in done.stdout
    linked = {file.name for file in (tmp_path / "home/sources").rglob("*") if file.is_symlink()}
    assert "chat_template.jinja" in linked and "model.safetensors" not in linked


@pytest.mark.parametrize(
    ("template", "length", "said"),
    [
        (CHATML.replace("message['content']", "message['content'] | upper"), 128, "same text as apply_chat_template"),
        (CHATML, 8, "no conversation has a trained token within max_length"),
    ],
)
def test_a_certificate_that_does_not_hold_ends_with_2(tmp_path: Path, template: str, length: int, said: str) -> None:
    write_model(tmp_path / "base", template=template)
    done = checked(tmp_path / "home", adapting(tmp_path / "base"), f"sft.max_length={length}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert "60" in done.stdout and "instructions" in done.stdout


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_lengths_beyond_a_checkpoints_context_are_refused_before_anything_starts(tmp_path: Path, command: str) -> None:
    write_model(tmp_path / "base", max_position_embeddings=256)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(adapting(tmp_path / "base")))
    environment = {**os.environ, "SLIPWAY_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "flows.cli", command, str(file), "sft.max_length=257"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "sft.max_length 257 is more than the checkpoint's context of 256" in done.stderr
    assert "set sft.max_length to 256 or less" in done.stderr
    assert not (tmp_path / "home" / "store").exists()
