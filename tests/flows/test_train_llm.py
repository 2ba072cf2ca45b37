"""The whole line by its command: text in, a served model out; the second time nothing runs."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.report.shape import ReportFacts
from tests.flows.line import Line

STAGES = ["data", "tokenizer", "pretrain", "sft", "reward", "dpo", "merge", "rlhf", "grpo", "evaluate", "quantize"]
STAGES += ["package"]
MODELS = ["base", "chat", "dpo", "ppo", "grpo"]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("line")
    shutil.copy(Path(__file__).with_name("small.yaml"), folder)
    made = Line(folder, str(folder / "small.yaml"))
    first = made.run()
    assert first.returncode == 0, first.stdout + first.stderr
    made.said = first.stdout  # type: ignore[attr-defined]
    yield made
    made.slipway("stop")


def test_the_served_model_answers(line: Line) -> None:
    model = line.client.get("/v1/models").json()["data"][0]["id"]
    question = {"model": model, "messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 4}
    answer = line.client.post("/v1/chat/completions", json=question)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["role"] == "assistant"
    assert "<html" in line.client.get("/").text


def test_what_it_prints_can_be_used(line: Line) -> None:
    said: str = line.said  # type: ignore[attr-defined]
    curl = next(text.strip() for text in said.splitlines() if text.strip().startswith("curl "))
    pasted = subprocess.run(["bash", "-c", f"{curl} -s"], capture_output=True, text=True, check=True)
    assert json.loads(pasted.stdout)["object"] == "chat.completion"
    assert "report.html" in said and "make up" in said and "stop" in said


def test_the_report_has_its_documented_shape(line: Line) -> None:
    facts = ReportFacts.model_validate(line.report())
    assert [s for s in STAGES if not any(found.name.startswith(s) for found in facts.stages)] == []
    assert list(dict.fromkeys(score.model for score in facts.scores)) == MODELS
    assert {score.measure for score in facts.scores} >= {"bits_per_byte", "accuracy"}
    assert all(score.low <= score.value <= score.high for score in facts.scores)
    assert [row.format for row in facts.quantization if row.shipped] in (["f16"], ["q8_0"])
    assert list(facts.prompts[0].answers) == MODELS
    assert {change.model for change in facts.changes} == {"dpo", "ppo", "grpo"}
    assert {change.against for change in facts.changes} == {"chat"}


def test_the_page_stands_alone(line: Line) -> None:
    page = (line.home / "runs" / "latest" / "report.html").read_text()
    assert "<script src" not in page and "<link" not in page and page.count("<svg") >= 4
    for word in ("Pretraining", "Supervised fine-tuning", "Reward model", "What alignment changed", "Quantization"):
        assert word in page


def test_an_unchanged_run_reuses_every_stage_and_leaves_the_served_model_alone(line: Line) -> None:
    before = (line.home / "runs" / "latest").resolve()
    served = line.client.get("/v1/models").json()
    again = line.run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert (line.home / "runs" / "latest").resolve() != before
    assert {stage["status"] for stage in line.report()["stages"]} == {"cached"}
    assert line.client.get("/v1/models").json() == served


def test_a_change_runs_what_depends_on_it_and_nothing_else(line: Line) -> None:
    changed = line.slipway("plan", line.recipe, f"serve.port={line.port}", "sft.learning_rate=2e-3")
    assert changed.returncode == 0, changed.stdout + changed.stderr
    runs = {text.split()[0] for text in changed.stdout.splitlines() if " runs " in text}
    assert {"sft", "evaluate", "quantize", "package"} <= runs
    assert not {"data", "tokenizer", "pretrain"} & runs


def test_pinned_lessons_are_used_and_the_report_says_so(line: Line) -> None:
    requests = (line.home / "store").glob("data-*/request.json")
    pin = next(f"store:{f.parent.name}" for f in requests if json.loads(f.read_text())["label"] == "instructions")
    done = line.run(f"data.instructions.sources=[{{path: '{pin}'}}]")
    assert done.returncode == 0, done.stdout + done.stderr
    told = line.report()
    assert told["pinned"] == {"data.instructions.sources.0.path": pin}
    assert [stage["name"] for stage in told["stages"] if stage["status"] != "cached"] == ["package"]  # licences differ
    assert pin in (line.home / "runs/latest/report.html").read_text()


def test_a_pinned_model_is_adapted_as_the_one_that_was_trained(line: Line) -> None:
    pin = next(f"store:{folder.name}" for folder in (line.home / "store").glob("pretrain-*"))
    overrides = ("flow=adapt_model", f"checkpoint={{path: '{pin}'}}", f"serve.port={line.port}")
    planned = line.slipway("plan", line.recipe, *overrides)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    runs = [text.split()[0] for text in planned.stdout.splitlines() if " runs " in text]
    assert "sft" in planned.stdout and runs == ["package"]  # the licence of a pinned model is not known


def test_a_misspelt_key_is_refused_before_anything_starts(line: Line) -> None:
    refused = line.run("pretrain.max_token=5")
    assert refused.returncode == 2
    assert "max_tokens" in refused.stdout + refused.stderr
