"""critique: pairs from a constitution, judged by the model itself, by an endpoint, or from a recording."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from containers.contract import Dataset, Files, Model, Quantized, StageError
from containers.critique.contract import CritiqueConfig, CritiqueInputs, CritiqueOutputs, Principle
from containers.critique.main import run
from containers.formats import identity_of, rows_of, schema_of
from containers.models import load_model
from containers.out import Out
from containers.package.contract import PackageConfig, PackageInputs
from containers.quantize.gguf_writer import write_gguf
from containers.quantize.parent_answers import reference_of
from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from infra.failures import BadInput
from infra.keys import local_key
from infra.launch import Launch, launching
from infra.planning import planning
from infra.runners.process import ProcessRunner
from infra.service import start_service, stop_service
from infra.settings import Settings
from infra.store import Store
from tasks.critique import critique
from tests.by_hand import run_by_hand
from tests.little_endpoint import little_endpoint
from tests.small_bundle import packaged
from tests.stages.taught_chat import taught_model
from tests.stages.toy_chat import chats, write_chats
from tests.stages.toy_pairs import kill_after

COLOUR = Principle(name="colour", criterion="It is colourful.", critique="What is grey?", revision="Add colour.")
PLAIN = Principle(name="plain", criterion="It is plain.", critique="What is loud?", revision="Be plain.")


LOUD = "So red that it shines."


def reviewed(chat: list[dict[str, str]], principle: Principle, critique: str, revision: str) -> list[dict[str, str]]:
    """Return a conversation in which the answer is criticised and written anew."""
    asked = [principle.critique, critique, principle.revision, revision]
    return [*chat, *({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(asked))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model that knows the colours of 14 numbers, and revises loudly for colour, not at all for plainness."""
    known = chats(14)
    lessons = [reviewed(chat, COLOUR, "It is dull.", LOUD) for chat in known]
    lessons += [reviewed(chat, PLAIN, "Nothing is.", chat[-1]["content"]) for chat in known]
    return taught_model(tmp_path_factory.mktemp("base"), lessons)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_chats(tmp_path_factory.mktemp("prompts") / "data", chats(10), chats(4, first=10))


def config_of(**changes: Any) -> CritiqueConfig:
    values = {"threads": 1, "device": "cpu", "max_tokens": 40, "batch_size": 4, "constitution": (COLOUR, PLAIN)}
    return CritiqueConfig.model_validate(values | changes)


def judged_at(url: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "endpoint", "url": url, "model": "m", "max_attempts": 1, **changes}


def cases_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "outputs/card/provenance.jsonl").read_text().splitlines()]


def card_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "outputs/card/card.json").read_text())


def judge(body: dict[str, Any]) -> Any:
    """Criticise, revise and score as a good judge would; each question has its own way to fail."""
    last = body["messages"][-1]["content"]
    number = int(re.search(r"number (\d+)", str(body["messages"]))[1])
    if last.startswith("You grade"):
        text = last.split("Answer to grade:\n")[1].split("\n\nWeigh")[0]
        if number == 5:
            return "I like both."
        return "Fine.\nScore: 9" if text.startswith("Red") and number != 4 else "Dull.\nScore: 3"
    if last in (COLOUR.critique, PLAIN.critique):
        return (400, "too long") if number == 1 else "" if number == 2 else f"Number {number} is dull."
    assert body["messages"][-2] == {"role": "assistant", "content": f"Number {number} is dull."}
    if number == 3:
        return str(body["messages"][-4]["content"]) + "  "
    return f"Red, for number {number}."


def run_here(folder: Path, config: CritiqueConfig, *inputs: Any) -> CritiqueOutputs:
    model, prompts, *recorded = inputs
    given = CritiqueInputs(model=model, prompts=prompts, recorded=recorded[0] if recorded else None)
    return run(config, given, Out(folder))


# What comes out


def test_a_revision_that_is_better_makes_a_pair(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    with little_endpoint(judge) as endpoint:
        made = run_here(tmp_path, config_of(judge=judged_at(endpoint.url)), base, prompts).preferences
    outcomes = {int(re.search(r"\d+", c["prompt"][0]["content"])[0]): c["outcome"] for c in cases_in(tmp_path)}
    faults = {1: "no_critique", 2: "no_critique", 3: "same_answer", 4: "not_better", 5: "not_judged"}
    assert outcomes == {n: faults.get(n, "kept") for n in range(14)}
    assert made.role == "preferences" and made.rows == {"train": 5, "validation": 4, "test": 0}
    assert pq.read_schema(made.path / "test/00000.parquet").names == schema_of("preferences").names
    for split in ("train", "validation"):
        for row in rows_of(made, split).to_pylist():
            case = next(c for c in cases_in(tmp_path) if c["prompt"] == row["prompt"])
            assert case["split"] == split and row["source"] == f"critique:{case['principle']}"
            assert row["chosen"] == [{"role": "assistant", "content": case["revision"]}]
            assert row["rejected"] == [{"role": "assistant", "content": case["first"]}]
            assert case["revision_score"] > case["first_score"]
            assert (case["judge"], case["model"]) == ("m", base.digest)
    card = card_in(tmp_path)
    assert card["outcomes"] == {"kept": 9, "no_critique": 2, "same_answer": 1, "not_judged": 1, "not_better": 1}
    assert sum(p["prompts"] for p in card["principles"].values()) == 14 and len(card["samples"]) == 5
    assert {case["principle"] for case in cases_in(tmp_path)} == {"colour", "plain"}


def test_a_recording_gives_the_same_pairs_without_an_endpoint(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    with little_endpoint(judge) as endpoint:
        live = run_here(tmp_path / "live", config_of(judge=judged_at(endpoint.url)), base, prompts)
    recorded = Files.of(tmp_path / "live/outputs/recorded")
    config = config_of(judge=judged_at("http://127.0.0.1:9", live=False, recorded="x"))
    made = run_here(tmp_path / "again", config, base, prompts, recorded)
    assert made.preferences.digest == live.preferences.digest
    assert cases_in(tmp_path / "again") == cases_in(tmp_path / "live")


def test_a_run_that_broke_goes_on_and_pays_for_nothing_twice(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    config = config_of(batch_size=1)
    with little_endpoint(judge) as endpoint:
        whole = run_here(tmp_path / "whole", config.revise(judge=judged_at(endpoint.url)), base, prompts)
        paid = len(endpoint.asked)
    with little_endpoint(lambda body: judge(body) if len(endpoint.asked) < 40 else (401, "spent")) as endpoint:
        config = config.revise(judge=judged_at(endpoint.url, concurrency=1))
        with pytest.raises(StageError, match=r"spent.*run again to go on"):
            run_here(tmp_path / "broken", config, base, prompts)
        assert (tmp_path / "broken/work/chunk-00000.json").is_file()
        before = len(endpoint.asked)
        endpoint.answer = judge
        went_on = run_here(tmp_path / "broken", config, base, prompts)
    assert went_on.preferences.digest == whole.preferences.digest
    assert len(endpoint.asked) - before <= paid - before + 2, "only what failed, and what was refused, is asked again"
    kept = Files.of(tmp_path / "broken/outputs/recorded").digest
    assert kept == Files.of(tmp_path / "whole/outputs/recorded").digest


def test_the_model_judges_itself_and_gives_the_same_bytes_anywhere(
    tmp_path: Path, base: Model, prompts: Dataset
) -> None:
    config = config_of(keep="different")
    inputs = CritiqueInputs(model=base, prompts=prompts)
    made, result = run_by_hand(tmp_path / "first", "critique", config, inputs)
    assert run_here(tmp_path / "second", config, base, prompts).preferences.digest == made.preferences.digest
    cases = cases_in(tmp_path / "first")
    assert cases == cases_in(tmp_path / "second")
    outcomes = {(case["principle"], case["outcome"]) for case in cases}
    assert outcomes == {("colour", "kept"), ("plain", "same_answer")}
    assert result.metrics["pairs"] == sum(made.preferences.rows.values()) > 0
    row = rows_of(made.preferences, "train").to_pylist()[0]
    assert row["chosen"][0]["content"] == LOUD and row["rejected"][0]["content"].startswith(("It is", "Number"))
    assert card_in(tmp_path / "first")["judge"] == "self"
    drawn = run_here(tmp_path / "drawn", config.revise(temperature=3.0, keep="different"), base, prompts)
    assert drawn.preferences.digest != made.preferences.digest


@pytest.mark.kill
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    config, inputs = config_of(batch_size=1, keep="different"), CritiqueInputs(model=base, prompts=prompts)
    whole, folder = run_here(tmp_path / "whole", config, base, prompts), tmp_path / "killed"
    kill_after("work/chunk-00000.json", folder, "critique", config, inputs)
    written = (folder / "work/chunk-00000.json").stat().st_mtime_ns
    went_on, _ = run_by_hand(folder, "critique", config, inputs)
    assert went_on.preferences.digest == whole.preferences.digest
    assert (folder / "work/chunk-00000.json").stat().st_mtime_ns == written, "only what was not finished is made"


def test_a_prompt_keeps_its_principle_whatever_stands_beside_it(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    run_here(tmp_path / "all", config_of(keep="different"), base, prompts)
    run_here(tmp_path / "few", config_of(keep="different", max_prompts=5), base, prompts)
    drawn = {case["id"]: case["principle"] for case in cases_in(tmp_path / "all")}
    few = cases_in(tmp_path / "few")
    assert len(few) == 5 and all(drawn[case["id"]] == case["principle"] for case in few)


# What is refused


def test_answers_that_are_cut_make_no_pair(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    with pytest.raises(StageError, match=r"no pair is left of 14 prompts \(14 first cut\): .*raise max_tokens"):
        run_here(tmp_path, config_of(max_tokens=2), base, prompts)


def test_a_judge_that_gives_no_scores_is_told_what_to_do(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    with pytest.raises(StageError, match=r"not judged.*keep: different"):
        run_here(tmp_path, config_of(), base, prompts)


def test_a_constitution_has_names_and_principles() -> None:
    with pytest.raises(ValidationError, match="two principles have one name"):
        config_of(constitution=(COLOUR, COLOUR))
    with pytest.raises(ValidationError, match="constitution"):
        config_of(constitution=())
    assert len({principle.name for principle in CritiqueConfig().constitution}) >= 4


def test_a_corpus_asks_nothing(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    with pytest.raises(StageError, match="a corpus asks nothing"):
        run_here(tmp_path, config_of(), base, prompts.revise(role="corpus"))


# In the house


def test_what_is_asked_live_is_never_reused_and_what_is_recorded_is(
    tmp_path: Path, base: Model, prompts: Dataset
) -> None:
    settings = Settings(home=tmp_path / "home")
    launch = Launch(settings, Store(settings.store), ProcessRunner(settings))
    recorded = tmp_path / "recorded"
    with launching(launch), little_endpoint(judge) as endpoint:
        live = config_of(judge=judged_at(endpoint.url))
        endpoint.answer = lambda body: judge(body) if len(endpoint.asked) < 20 else (401, "spent")
        with pytest.raises(BadInput, match="spent"):
            critique(base, prompts, live)
        broken = launch.stages[-1]
        endpoint.answer = judge
        first = critique(base, prompts, live)
        assert launch.stages[-1].fingerprint == broken.fingerprint, "it went on where it broke"
        paid = len(endpoint.asked)
        assert critique(base, prompts, live).digest == first.digest
        assert len(endpoint.asked) > paid and launch.stages[-1].fingerprint != broken.fingerprint
        shutil.copytree(settings.store / launch.stages[-1].address / "outputs/recorded", recorded)
        paid = len(endpoint.asked)
        replay = config_of(judge=judged_at(endpoint.url, live=False, recorded=str(recorded)))
        assert critique(base, prompts, replay).digest == first.digest
        assert critique(base, prompts, replay).digest == first.digest
        assert [record.status for record in launch.stages[-2:]] == ["done", "cached"] and len(endpoint.asked) == paid
    with planning(settings, "plan") as plan, launching(plan.launch):
        critique(base, prompts, live)
        critique(base, prompts, replay)
    assert [stage.reused for stage in plan.stages] == [False, True]


# Our own endpoint


def test_our_own_served_model_judges(
    tmp_path: Path, base: Model, prompts: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model criticises itself and is its own endpoint: served, it says what it says here."""
    settings = Settings(home=tmp_path / "home")
    quantized = quantized_of(base, tmp_path / "gguf")
    bundle = packaged(tmp_path / "bundle", PackageConfig(name="m"), PackageInputs(quantized=quantized))
    endpoint = start_service(bundle, ServeConfig(port=free_port(), threads=1), settings)
    try:
        monkeypatch.setenv("JUDGE_API_KEY", local_key(settings))
        config = config_of(judge=judged_at(f"{endpoint.url}/v1", key_env="JUDGE_API_KEY"), keep="different")
        made = run_here(tmp_path / "served", config, base, prompts).preferences
    finally:
        stop_service(settings)
    here = run_here(tmp_path / "here", config_of(keep="different"), base, prompts).preferences
    assert made.digest == here.digest
    recorded = Files.of(tmp_path / "served/outputs/recorded")
    config = config_of(judge=judged_at("http://127.0.0.1:9", live=False, recorded="x"), keep="different")
    assert run_here(tmp_path / "again", config, base, prompts, recorded).preferences.digest == made.digest


def quantized_of(model: Model, folder: Path) -> Quantized:
    shutil.copytree(model.path, folder)
    write_gguf(model.path, folder / "model.gguf", "f16")
    reference_of(load_model(model, "fp32"), model, 512, "fp32").write(folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    return Quantized.of(folder, format="f16", parent=model.digest, **identity_of(folder))
