"""A whole line whose adapters stay beside their base: one base, and every model of the run by its name."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.line import ROOT, Line

TRAINED = "learning_rate: 1e-3, batch_size: 16, max_length: 128, precision: fp32, threads: 1"
KEPT = (
    "package.adapters=unmerged",
    f"sft={{method: lora, r: 4, micro_batch_size: 8, {TRAINED}}}",
    f"align=[{{dpo: {{weights: {{method: lora, r: 4}}, seed: 1, {TRAINED}}}, beside: true}}, "
    f"{{dpo: {{weights: {{method: lora, r: 4}}, {TRAINED}}}}}]",
)

WALK = """
import os, sys
from infra.embedded import prefect_environment
from infra.settings import Settings
settings = Settings()
os.environ.update(prefect_environment(settings))
from flows.release_model import release_model
from infra.planning import planning
with planning(settings, "released") as plan:
    release_model.fn(sys.argv[1], sys.argv[2], tuple(sys.argv[3:]))
print([f"{entry.stage.word} {entry.reused}" for entry in plan.stages][-4:])
"""
"""Foresee the release of an adapter of the store."""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("unmerged")
    shutil.copy(Path(__file__).with_name("small.yaml"), folder)
    made = Line(folder, str(folder / "small.yaml"))
    yield made
    made.slipway("stop")


@pytest.mark.slow
def test_a_plan_shows_what_stays_beside(line: Line) -> None:
    planned = line.slipway("plan", line.recipe, f"serve.port={line.port}", *KEPT)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    runs = [text.split()[0] for text in planned.stdout.splitlines() if " runs " in text]
    assert runs.index("convert") < runs.index("quantize") < runs.index("package")
    plain = line.slipway("plan", line.recipe, f"serve.port={line.port}")
    assert "convert" not in plain.stdout


@pytest.mark.slow
def test_every_model_of_the_run_answers_on_one_base(line: Line) -> None:
    done = line.run(*KEPT)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = {model["id"]: model for model in line.client.get("/v1/models").json()["data"]}
    chains = {name: model["adapters"] for name, model in listed.items()}
    assert chains == {
        "assistant": ["chat", "dpo-2"],
        "assistant-base": [],
        "assistant-chat": ["chat"],
        "assistant-dpo": ["chat", "dpo"],
    }
    assert len({model["provenance"] for model in listed.values()}) == 4
    for name in listed:
        asked = {"model": name, "messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 4}
        answer = line.client.post("/v1/chat/completions", json=asked).json()
        assert answer["model"] == name and answer["usage"]["completion_tokens"] > 0
    cards = line.report()["cards"]
    assert sorted(cards["package"]["models"]) == sorted(listed)
    assert cards["convert"]["nats_from_whole"] <= cards["convert"]["max_nats"]
    weights = list((line.home / "store").glob("package-*/outputs/bundle/src/model/*.gguf"))
    assert len(weights) == 1, "one base serves them all"
    refused = line.slipway("export", "ollama", "latest", str(line.home / "ollama"))
    assert refused.returncode == 2 and "keeps adapters beside its base" in refused.stdout + refused.stderr
    exported = line.slipway("export", "hf", "latest", str(line.home / "hf"))
    assert exported.returncode == 0, exported.stderr
    again = line.run(*KEPT)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {stage["status"] for stage in line.report()["stages"]} == {"cached"}
    pin = next(f"store:{folder.name}" for folder in (line.home / "store").glob("sft-*"))
    environment = {**os.environ, "SLIPWAY_HOME": str(line.home)}
    words = [sys.executable, "-c", WALK, pin, line.recipe, *KEPT]
    walked = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert walked.returncode == 0, walked.stderr
    # The base's weights are there; its one adapter beside it makes another bundle.
    assert walked.stdout.split("\n")[0] == "['evaluate False', 'convert False', 'quantize True', 'package False']"
