"""The whole line with every stage in its own container: the same bytes come out as from processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.containers import stand
from tests.flows.line import Line
from tests.rules.house import ROOT

pytestmark = pytest.mark.timeout(1800)
CANARY = "canary-7d1e44aa"
SMALL = str(ROOT / "tests" / "flows" / "small.yaml")


def stage_folders(line: Line) -> dict[str, Path]:
    return {folder.name: folder for folder in (line.home / "store").iterdir() if (folder / "result.json").is_file()}


def outputs(folder: Path) -> Any:
    """Return what a stage made, digests included."""
    return json.loads((folder / "result.json").read_text())["outputs"]


@pytest.fixture(scope="module")
def lines(images, tmp_path_factory):
    """The line in containers, then as processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", CANARY)
        patch.setenv("SLIPWAY_RUNNER", "docker")
        patch.setenv("SLIPWAY_IMAGE_TAG", stand.TAG)
        contained = Line(tmp_path_factory.mktemp("contained"), SMALL)
        done = contained.run()
        assert done.returncode == 0, done.stdout + done.stderr
        contained.slipway("stop")
        patch.setenv("SLIPWAY_RUNNER", "process")
        plain = Line(tmp_path_factory.mktemp("plain"), SMALL)
        done = plain.run()
        assert done.returncode == 0, done.stdout + done.stderr
        plain.slipway("stop")
        return contained, plain


def test_containers_and_processes_make_the_same_bytes(lines):
    contained, plain = (stage_folders(line) for line in lines)
    assert contained.keys() == plain.keys() and len(contained) >= 15
    different = [name for name in contained if outputs(contained[name]) != outputs(plain[name])]
    assert not different, different


def test_every_stage_ran_in_a_container_of_its_own(engine, lines):
    contained, _ = lines
    names = {folder.name.rpartition("-")[0] for folder in stage_folders(contained).values()}
    assert {"data", "tokenizer", "pretrain", "sft", "reward", "dpo", "rlhf", "grpo", "quantize", "package"} <= names
    pythons = {
        json.loads((f / "result.json").read_text())["environment"]["python"] for f in stage_folders(contained).values()
    }
    inside = engine.containers.run(
        f"slipway/sft:{stand.TAG}", entrypoint=["python", "-c", "import platform; print(platform.python_version())"],
        remove=True, network_mode="none",
    )  # fmt: skip
    assert pythons == {inside.decode().strip()}
    assert not engine.containers.list(all=True, filters={"label": f"slipway.home={contained.home}"})


def test_a_second_run_reuses_all_of_it(lines, monkeypatch):
    contained, _ = lines
    monkeypatch.setenv("SLIPWAY_RUNNER", "docker")
    monkeypatch.setenv("SLIPWAY_IMAGE_TAG", stand.TAG)
    done = contained.run()
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((contained.home / "runs" / "latest" / "run.json").read_text())
    contained.slipway("stop")
    assert {s["status"] for s in record["stages"] if s["address"]} == {"cached"}


def test_no_secret_is_written_anywhere(lines):
    """Neither a log nor a database of Prefect or MLflow nor an artifact holds it."""
    for line in lines:
        files = [file for file in line.home.rglob("*") if file.is_file() and not file.is_symlink()]
        holding = [file for file in files if CANARY.encode() in file.read_bytes()]
        assert len(files) > 100 and not holding, holding
