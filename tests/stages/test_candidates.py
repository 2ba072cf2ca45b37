"""candidates: several answers to a prompt, out to people and back as preferences."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from containers.candidates.contract import CandidatesConfig, CandidatesInputs
from containers.candidates.main import run
from containers.contract import Candidates, Dataset, Model, Request, Result, StageError, artifacts_in
from containers.data.contract import DataConfig, DataOutputs
from containers.data.fitting import Fitter
from containers.entrypoint import relative
from containers.out import Out
from containers.sft.contract import FullConfig, SFTOutputs
from flows.candidates import SCREEN, config_of, rows_in, task_of
from infra.runs import RunRecord, StageEntry
from infra.store import Store
from tests.by_hand import run_by_hand
from tests.stages.taught_chat import taught_model
from tests.stages.test_data import Given, Made, lines, make
from tests.stages.toy_chat import chats, write_chats
from tests.stages.toy_pairs import kill_after
from tests.unit.test_cli import slipway


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return taught_model(tmp_path_factory.mktemp("base"), chats(40))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_chats(tmp_path_factory.mktemp("prompts") / "data", chats(24), chats(8, first=24))


def drawn(**changes: Any) -> CandidatesConfig:
    values = {"threads": 1, "device": "cpu", "max_tokens": 40, "batch_size": 8, "temperature": 2.0}
    return CandidatesConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Model, prompts: Dataset) -> Candidates:
    given_inputs = CandidatesInputs(model=base, prompts=prompts)
    outputs, _ = run_by_hand(tmp_path_factory.mktemp("made"), "candidates", drawn(), given_inputs)
    return outputs.candidates  # type: ignore[no-any-return]


# What is drawn


def test_each_prompt_has_different_answers_and_their_provenance(made: Candidates, base: Model) -> None:
    rows = rows_in(made)
    assert 16 < len(rows) <= 32 and {row["split"] for row in rows} == {"train", "validation"}
    for row in rows:
        assert 2 <= len(row["candidates"]) <= 4 and len(set(row["candidates"])) == len(row["candidates"])
        assert row["model"] == base.digest and row["prompt"][-1]["role"] == "user" and row["version"] == 1
        assert row["sampling"] == {"temperature": 2.0, "max_tokens": 40, "seed": 0, "count": 4}
        assert row["ranking"] is None and row["rater"] is None
        assert all(answer == answer.strip() and "<|" not in answer for answer in row["candidates"])
    card = json.loads((made.path.parent / "card/card.json").read_text())
    assert card["answers"] == sum(len(row["candidates"]) for row in rows)
    assert card["answers"] + sum(card["lost"].values()) <= 4 * card["asked"]


def test_the_same_seed_draws_the_same_bytes_and_another_others(
    tmp_path: Path, made: Candidates, base: Model, prompts: Dataset
) -> None:
    inputs = CandidatesInputs(model=base, prompts=prompts)
    assert run(drawn(), inputs, Out(tmp_path / "same")).candidates.digest == made.digest
    assert run(drawn(seed=1), inputs, Out(tmp_path / "other")).candidates.digest != made.digest


@pytest.mark.kill
def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path: Path, made: Candidates, base: Model, prompts: Dataset
) -> None:
    inputs, folder = CandidatesInputs(model=base, prompts=prompts), tmp_path / "killed"
    first = "work/chunk-00000.json"
    kill_after(first, folder, "candidates", drawn(), inputs)
    written = (folder / first).stat().st_mtime_ns
    outputs, _ = run_by_hand(folder, "candidates", drawn(), inputs)
    assert outputs.candidates.digest == made.digest
    assert (folder / first).stat().st_mtime_ns == written, "only what was not finished is made"


def test_where_nothing_differs_it_says_what_to_do(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    inputs = CandidatesInputs(model=base, prompts=prompts)
    with pytest.raises(
        StageError, match=r"no prompt of 6 has two different answers \(2\d answers cut.*raise max_tokens"
    ):
        run(drawn(max_tokens=2, max_prompts=6), inputs, Out(tmp_path))


def test_a_misspelt_change_names_the_right_one() -> None:
    assert config_of(["count=3", "temperature=0.7"]).count == 3
    with pytest.raises(StageError, match="did you mean 'count'"):
        config_of(["coun=3"])


# Out to people, and back


def back(folder: Path, name: str, text: str, **config: Any) -> Made:
    return make(folder, "preferences", Given({name: text}), **config)


def wanted(rows: list[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    """Return (split, question, better, worse) of every ordered pair, texts normalised as the data stage does."""
    tidy = Fitter("preferences").text
    return {
        (row["split"], row["prompt"][-1]["content"], tidy(row["candidates"][a]), tidy(row["candidates"][b]))
        for row in rows
        for place, a in enumerate(row["ranking"])
        for b in row["ranking"][place + 1 :]
    }


def found(made: Made) -> set[tuple[str, str, str, str]]:
    return {
        (split, row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"])
        for split in ("train", "validation", "test")
        for row in made.rows(split)
    }


@settings(
    max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_what_people_rank_comes_back_as_pairs(
    made: Candidates, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Export -> ranking -> import, in our format and in Label Studio's: the same pairs, each in its prompt's split."""
    rows = [{**row, "ranking": data.draw(st.permutations(range(len(row["candidates"]))))} for row in rows_in(made)[:12]]
    folder = tmp_path_factory.mktemp("back")
    ours = back(folder / "ours", "answers.jsonl", lines(*rows), test_share=0, validation_share=0)
    assert found(ours) == wanted(rows)
    theirs = back(
        folder / "theirs", "export.json", json.dumps([annotated(row) for row in rows]), test_share=0, validation_share=0
    )
    assert found(theirs) == wanted(rows)


def annotated(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row's task as Label Studio exports it once somebody has dragged its items into an order."""
    task = task_of(row)
    shown = [item["id"] for item in task["data"]["items"]]
    result = {"type": "ranker", "value": {"ranker": {"ranking": [shown[place] for place in row["ranking"]]}}}
    return {"id": 1, **task, "annotations": [{"completed_by": {"id": 7}, "was_cancelled": False, "result": [result]}]}


def test_a_label_studio_task_shows_what_is_asked_and_answered(made: Candidates) -> None:
    row = rows_in(made)[0]
    shown = task_of(row)["data"]
    assert shown["text"].startswith("User: Which colour") and len(shown["items"]) == len(row["candidates"])
    assert all(f"${name}" in SCREEN for name in ("text", "items"))
    assert shown["items"][1] == {"id": "1", "title": "Answer 2", "body": row["candidates"][1]}


def test_the_command_asks_a_model_of_a_run(tmp_path: Path, base: Model, prompts: Dataset) -> None:
    home = tmp_path / "home"
    stored = [
        publish(home, "sft", FullConfig(), SFTOutputs(model=base)),
        publish(home, "data", DataConfig(), DataOutputs(dataset=prompts)),
    ]
    record = RunRecord(run="tiny-1", recipe="tiny", began=0, ended=1, status="done", config={}, stages=tuple(stored))
    (home / "runs/tiny-1").mkdir(parents=True)
    (home / "runs/tiny-1/run.json").write_text(record.model_dump_json())
    out = tmp_path / "tasks.json"
    changes = ["max_prompts=8", "temperature=2.0", "threads=1"]
    command = ["candidates", "tiny", *changes, "--out", str(out), "--format", "label-studio"]
    done = slipway(home, *command)
    assert done.returncode == 0, done.stderr
    shown = json.loads(out.read_text())
    assert 2 <= len(shown) <= 8 and shown[0]["data"]["model"] == base.digest
    assert out.with_suffix(".xml").read_text() == SCREEN
    assert "cached" in slipway(home, *command).stdout.lower()
    wrong = slipway(home, *command, "--model", "chatt")
    assert wrong.returncode == 2 and "has no model 'chatt': choose from sft" in wrong.stderr
    assert "has not been run yet" in slipway(home, "candidates", "qwen-lora", "--out", str(out)).stderr


def publish(home: Path, word: str, config: Any, outputs: Any) -> StageEntry:
    """Put a stage's outputs into a store as if it had made them there."""
    staged = home / f"staged-{word}"
    ((name, artifact),) = artifacts_in(outputs)
    shutil.copytree(artifact.path, staged / "outputs" / name)
    fingerprint = hashlib.sha256(word.encode()).hexdigest()
    outputs = outputs.revise(**{name: artifact.revise(path=staged / "outputs" / name)})
    request = Request(
        stage=word, label="", fingerprint=fingerprint, code="", config=config.model_dump(mode="json"), inputs={}
    )
    result = Result(
        stage=word, fingerprint=fingerprint, outputs=relative(outputs, staged), metrics={}, seconds=1, environment={}
    )
    (staged / "request.json").write_text(request.model_dump_json())
    (staged / "result.json").write_text(result.model_dump_json())
    published = Store(home / "store").publish(staged)
    return StageEntry(name=word, status="done", address=published.address, fingerprint=fingerprint)


PROMPT, ANSWERS = "What floats on the water of a still lake?", ["A boat floats.", "A stone floats.", "A duck floats."]


def ranked_by(rater: str, *ranking: int, **more: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "candidates": ANSWERS, "ranking": list(ranking), "rater": rater, **more}


def test_raters_in_files_of_their_own_are_counted_together_and_their_agreement_told(tmp_path: Path) -> None:
    ann, bob, cyd = (lines(ranked_by(*r)) for r in (("ann", 0, 2, 1), ("bob", 0, 1, 2), ("cyd", 2, 0, 1)))
    stage = make(
        tmp_path, "preferences", Given({"ann.jsonl": ann, "bob.jsonl": bob}), Given({"cyd.jsonl": cyd}),
        test_share=0, validation_share=0,
    )  # fmt: skip
    pairs = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in stage.rows()]
    assert len(pairs) == 3
    assert set(pairs) == {(ANSWERS[0], ANSWERS[1]), (ANSWERS[0], ANSWERS[2]), (ANSWERS[2], ANSWERS[1])}
    told = stage.card["rankings"]
    assert {name: told[name] for name in ("rankings", "raters", "items", "ranked_by_several", "pairs")} == {
        "rankings": 3, "raters": 3, "items": 1, "ranked_by_several": 1, "pairs": 3,
    }  # fmt: skip
    assert told["agreement"]["agreeing_share"] == pytest.approx(5 / 9)
    assert told["agreement"]["compared"] == 9
    assert [file["rows"] for file in stage.card["files"]] == [1, 1, 1]
    page = (stage.folder / "outputs/card/card.html").read_text()
    assert "agreed on 56% of" in page and "3 rankings of 1 prompts by" in page


def test_bad_rankings_are_rejected_one_by_one(tmp_path: Path) -> None:
    good = [ranked_by("ann", 0, 1, 2) | {"prompt": f"{PROMPT} {i}"} for i in range(20)]
    bad = [ranked_by("ann", 0, 0, 1), ranked_by("ann", 0, 1, 2) | {"candidates": ["A boat."] * 3}]
    stage = back(tmp_path, "r.jsonl", lines(*good, *bad), validation_share=0, test_share=0)
    assert [(reject["file"], reject["line"]) for reject in stage.rejects] == [("r.jsonl", 21), ("r.jsonl", 22)]
    assert len(stage.rows()) == 60, "pairs of one ranking are alike, and none is dropped as a near copy"


def test_what_nobody_ranked_is_no_data(tmp_path: Path, made: Candidates) -> None:
    stage = back(tmp_path, "answers.jsonl", (made.path / "candidates.jsonl").read_text())
    assert stage.code == 2 and "is ranked yet" in stage.errors


def test_rankings_are_preferences_and_nothing_else(tmp_path: Path) -> None:
    stage = make(tmp_path, "instructions", Given({"r.jsonl": lines(ranked_by("ann", 0, 1, 2))}))
    assert stage.code == 2 and "it looks like ranking" in stage.errors
