"""Run one stage the way a person would: write the folder, call the entrypoint in its own process, read the result."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from containers.contract import Frozen, Request, Result, artifacts_in
from containers.entrypoint import located, stage_named
from infra.staging import linked

ROOT = Path(__file__).resolve().parent.parent


def run_by_hand(folder: Path, word: str, config: Frozen, inputs: Frozen, code: str = "") -> tuple[Any, Result]:
    """Return (typed outputs, result) of one stage run in `folder`; raises AssertionError with its errors."""
    failed, errors = try_by_hand(folder, word, config, inputs, code)
    assert failed == 0, errors
    result = Result.model_validate_json((folder / "result.json").read_text())
    return stage_named(word).outputs.model_validate(located(result.outputs, folder)), result


def try_by_hand(folder: Path, word: str, config: Frozen, inputs: Frozen, code: str = "") -> tuple[int, str]:
    """Return (exit code, error lines) of one stage run in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    request = Request(
        stage=word, label="", fingerprint="0" * 64, code=code,
        config=config.model_dump(mode="json"), inputs=placed(inputs, folder),
    )  # fmt: skip
    (folder / "request.json").write_text(request.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "work/hf")}
    done = subprocess.run(
        [sys.executable, "-m", "containers.entrypoint", str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr[-3000:] + "\n".join(logged(folder, "error"))


def placed(inputs: Frozen, folder: Path) -> dict[str, Any]:
    """Return inputs as request values, each artifact linked at inputs/<name>."""
    (folder / "inputs").mkdir(exist_ok=True)
    for name, artifact in artifacts_in(inputs):
        link = folder / "inputs" / name
        if not link.exists():
            link.symlink_to(artifact.path.resolve())
    return linked(inputs)


def events(folder: Path) -> list[dict[str, Any]]:
    """Return every event that the stage appended."""
    lines = (folder / "events.jsonl").read_text().splitlines() if (folder / "events.jsonl").exists() else []
    return [json.loads(line) for line in lines]


def logged(folder: Path, level: str) -> list[str]:
    """Return the log lines of one level."""
    return [e["text"] for e in events(folder) if e["event"] == "log" and e["level"] == level]
