"""The command: its exit codes, its errors, and what needs no run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from containers.contract import StageError
from flows.board import Row, duration, number, progress_text
from flows.failures import exit_code_of
from flows.recipe import recipe_names
from infra.failures import Cancelled, StageFailed

ROOT = Path(__file__).resolve().parents[2]
MINI = {
    "description": "for tests",
    "data": {
        "corpus": {"sources": [{"builtin": "stories", "max_rows": 50}]},
        "instructions": {"sources": [{"builtin": "desk", "max_rows": 50}]},
    },
    "sft": {"method": "full", "max_length": 256},
}


def slipway(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "SLIPWAY_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, env=environment, check=False
    )


def mini(folder: Path, **changes: object) -> str:
    file = folder / "mini.yaml"
    file.write_text(yaml.safe_dump({**MINI, **changes}))
    return str(file)


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    done = slipway(tmp_path, "--help")
    assert done.returncode == 0
    commands = "run plan check new recipes why status logs report chat serve stop doctor prune schema verify"
    for command in commands.split():
        assert f"\u2502 {command} " in done.stdout
    program = "import sys, flows.cli; print(sorted({'prefect', 'mlflow', 'torch', 'pydantic'} & set(sys.modules)))"
    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert imported.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "tinny"), "did you mean 'tiny'?"),
        (("run", "tiny", "sft.learning_rat=1"), "did you mean 'learning_rate'?"),
        (("run", "tiny", "sft.max_length=9999"), "sft.max_length 9999 is more than pretrain.sequence_length"),
        (("plan", "tiny", "sft"), "not of the form key.path=value"),
        (("report",), "there is no run yet"),
        (("chat", "base"), "there is no run yet"),
        (("verify", "sft-000000000000"), "has no sft-000000000000"),
    ],
)
def test_what_you_gave_wrong_is_said_and_ends_with_2(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = slipway(tmp_path, *words)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if words[0] == "verify" else 2)


def test_an_unknown_option_ends_with_2(tmp_path: Path) -> None:
    assert slipway(tmp_path, "run", "--nonsense").returncode == 2


def test_pruning_keeps_one_run_at_least(tmp_path: Path) -> None:
    none = slipway(tmp_path, "prune", "--keep", "0")
    assert none.returncode == 2 and "greater than or equal to 1" in none.stderr
    assert slipway(tmp_path, "prune", "--keep", "1").returncode == 0


def test_exit_codes_tell_failures_apart(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code_of(StageError("mend it")) == 2
    assert exit_code_of(StageFailed("it broke")) == 1
    assert exit_code_of(Cancelled("stopped")) == 130
    assert "traceback" not in capsys.readouterr().err


def test_the_traceback_of_a_fault_of_ours_goes_to_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    assert exit_code_of(ZeroDivisionError("by nothing")) == 1
    said = capsys.readouterr().err
    assert "by nothing" in said and "Traceback" not in said
    assert "ZeroDivisionError" in (tmp_path / "logs" / "failures.log").read_text()


def test_a_plan_starts_nothing_and_forecasts(tmp_path: Path) -> None:
    done = slipway(tmp_path / "home", "plan", mini(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [line.split("  ")[0].strip() for line in done.stdout.splitlines()]
    assert lines[1:6] == ["data instructions", "data corpus", "tokenizer", "pretrain", "sft"]
    assert "never run before" in done.stdout
    assert not (tmp_path / "home" / "runs").exists() and not (tmp_path / "home" / "store").exists()


def test_what_cannot_fit_is_refused_before_it_starts(tmp_path: Path) -> None:
    done = slipway(tmp_path / "home", "plan", mini(tmp_path), "pretrain.depth=64", "pretrain.micro_batch_size=32")
    assert done.returncode == 2
    assert "this cannot fit" in done.stderr and "pretrain.micro_batch_size" in done.stderr


def test_a_recipe_of_ones_own_starts_from_another_and_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    assert slipway(tmp_path, "new", str(file), "--from", "tiny").returncode == 0
    assert yaml.safe_load(file.read_text())["description"]
    again = slipway(tmp_path, "new", str(file))
    assert again.returncode == 2 and "is there already" in again.stderr


def test_recipes_and_schema_are_listed(tmp_path: Path) -> None:
    listed = slipway(tmp_path, "recipes").stdout
    assert all(name in listed for name in recipe_names())
    schema = json.loads(slipway(tmp_path, "schema").stdout)
    assert {"data", "sft", "serve"} <= schema["properties"].keys()


def test_status_without_a_run_says_how_to_start(tmp_path: Path) -> None:
    done = slipway(tmp_path, "status")
    assert done.returncode == 0
    assert "slipway run tiny" in done.stdout


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0.4 s"), (31, "31 s"), (245, "4:05"), (7800, "2:10:00")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12"), (4.52, "4.5"), (950.3, "950"), (12_500, "12.5k"), (3.2e6, "3.2M")]
)
def test_counts_read_well(value: float, text: str) -> None:
    assert number(value) == text


def test_a_running_row_shows_how_far_how_well_and_how_fast() -> None:
    row = Row("sft", "running", done=120, total=400, unit="steps", figures={"loss": 2.312, "tokens_per_second": 12_500})
    assert progress_text(row) == "120/400 steps  loss 2.31  12.5k tokens/s"
