"""Judges: what is asked, what is recorded, what is asked again, and what is a score."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from containers.contract import Files, Model, StageError
from containers.judges import endpoint as endpoints
from containers.judges.config import EndpointJudgeConfig, JudgeConfig, SelfJudgeConfig
from containers.judges.judge import EndpointJudge, SelfJudge, judge_of, score_all, score_in
from containers.out import Out
from containers.speaking import Reply, SpeakingConfig
from containers.voice import Voice
from tests.little_endpoint import LittleEndpoint, little_endpoint
from tests.stages.toy_chat import write_model


def asked(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def echo(body: dict[str, Any]) -> str:
    return f"You said {body['messages'][-1]['content']}"


def config_of(endpoint: LittleEndpoint | str, **changes: Any) -> EndpointJudgeConfig:
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    return EndpointJudgeConfig(url=url, model="m", **changes)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_DELAY_SECONDS", 0.01)


def recording_in(folder: Path) -> Files:
    return Files.of(folder / "outputs/recorded")


def test_each_question_is_asked_once_as_openai_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "secret")
    with little_endpoint(echo) as endpoint:
        judge = EndpointJudge(config_of(endpoint, key_env="JUDGE_API_KEY", seed=3), None, Out(tmp_path))
        heard: list[int] = []
        replies = judge.answer(asked("a", "b", "a"), 7, heard.append)
    assert replies == [Reply("You said a", True), Reply("You said b", True), Reply("You said a", True)]
    assert sorted(heard) == [1, 2] and len(endpoint.asked) == 2
    body = {"model": "m", "max_tokens": 7, "temperature": 0, "seed": 3, "path": "/v1/chat/completions"}
    assert all(body.items() <= question.items() for question in endpoint.asked)
    assert {headers["Authorization"] for headers in endpoint.headers} == {"Bearer secret"}


def test_a_complete_recording_needs_no_endpoint(tmp_path: Path) -> None:
    with little_endpoint(lambda body: (400, "too long") if "long" in echo(body) else echo(body)) as endpoint:
        live = EndpointJudge(config_of(endpoint), None, Out(tmp_path / "live"))
        said = live.answer(asked("a", "b\u2028c", "too long"), 7)
        live.close()
    assert said[2] is None
    recorded = recording_in(tmp_path / "live")
    gone = config_of("http://127.0.0.1:9/v1", live=False, recorded="x")
    replay = EndpointJudge(gone, recorded, Out(tmp_path / "replay"))
    assert replay.answer(asked("a", "b\u2028c", "too long"), 7) == said
    replay.close()
    assert recording_in(tmp_path / "replay").digest == recorded.digest
    with pytest.raises(StageError, match="1 answers of m are not recorded"):
        replay.answer(asked("a", "new"), 7)
    with pytest.raises(StageError, match="2 answers of m are not recorded"):
        replay.answer(asked("a", "b\u2028c"), 8)


def test_only_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    with little_endpoint(echo) as endpoint:
        first = EndpointJudge(config_of(endpoint), None, Out(tmp_path / "first"))
        first.answer(asked("a", "b"), 7)
        first.close()
        second = EndpointJudge(config_of(endpoint), recording_in(tmp_path / "first"), Out(tmp_path / "second"))
        second.answer(asked("b", "c"), 7)
        second.close()
    assert [question["messages"][0]["content"] for question in endpoint.asked[2:]] == ["c"]
    lines = (tmp_path / "second/outputs/recorded/answers.jsonl").read_text().split("\n")[:-1]
    assert sorted(json.loads(line)["messages"][0]["content"] for line in lines) == ["b", "c"]


def test_a_killed_run_asks_for_nothing_twice(tmp_path: Path) -> None:
    with little_endpoint(echo) as endpoint:
        EndpointJudge(config_of(endpoint), None, Out(tmp_path)).answer(asked("a", "b"), 7)
        with (tmp_path / "work/answers.jsonl").open("a") as journal:
            journal.write('{"answer": "to')
        again = EndpointJudge(config_of(endpoint), None, Out(tmp_path))
        again.answer(asked("a", "b", "c"), 7)
        again.close()
    assert len(endpoint.asked) == 3
    assert (tmp_path / "outputs/recorded/answers.jsonl").read_text().count("\n") == 3


def test_a_damaged_recording_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given/answers.jsonl").write_text('\n{"model": "m", "messages": [], "answer": "a"}\n')
    with pytest.raises(StageError, match=r"answers.jsonl:2: not a recorded answer \(KeyError: 'parameters'\)"):
        EndpointJudge(config_of("http://127.0.0.1:9"), Files.of(tmp_path / "given"), Out(tmp_path / "out"))


def test_busy_and_broken_endpoints_are_asked_again(tmp_path: Path) -> None:
    faults = iter([(429, "slow down"), (503, "starting"), (500, "oops")])
    with little_endpoint(lambda body: next(faults, "At last.")) as endpoint:
        judge = EndpointJudge(config_of(endpoint), None, Out(tmp_path))
        assert judge.answer(asked("a"), 7) == [Reply("At last.", True)]
    assert len(endpoint.asked) == 4


@pytest.mark.parametrize(
    ("fault", "said", "attempts"),
    [
        ((500, "oops"), "does not answer.*HTTP 500 oops", 3),
        ((401, "who are you"), "does not answer.*HTTP 401 who are you", 1),
        ((404, "no such model"), "does not answer.*HTTP 404", 1),
        ((400, "max_tokens"), "refuses every question.*HTTP 400 max_tokens", 1),
        ((200, "<html>"), "does not answer as OpenAI's", 1),
        ((200, '{"choices": []}'), "does not answer as OpenAI's", 1),
    ],
)
def test_what_an_endpoint_cannot_do_is_said(tmp_path: Path, fault: Any, said: str, attempts: int) -> None:
    with little_endpoint(lambda body: fault) as endpoint:
        judge = EndpointJudge(config_of(endpoint, max_attempts=3), None, Out(tmp_path))
        with pytest.raises(StageError, match=said):
            judge.answer(asked("a"), 7)
    assert len(endpoint.asked) == attempts
    assert not (tmp_path / "work/answers.jsonl").read_text()


def test_an_endpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    judge = EndpointJudge(config_of("http://127.0.0.1:9/v1", max_attempts=2), None, Out(tmp_path))
    with pytest.raises(StageError, match=r"http://127.0.0.1:9/v1/ does not answer \(ConnectError"):
        judge.answer(asked("a"), 7)


def test_a_silent_endpoint_times_out(tmp_path: Path) -> None:
    def slow(body: dict[str, Any]) -> str:
        time.sleep(1)
        return "late"

    with little_endpoint(slow) as endpoint:
        judge = EndpointJudge(config_of(endpoint, max_attempts=2, timeout_seconds=0.1), None, Out(tmp_path))
        with pytest.raises(StageError, match="ReadTimeout"):
            judge.answer(asked("a"), 7)


def test_no_more_questions_are_under_way_than_allowed(tmp_path: Path) -> None:
    def slow(body: dict[str, Any]) -> str:
        time.sleep(0.02)
        return "ok"

    with little_endpoint(slow) as endpoint:
        EndpointJudge(config_of(endpoint, concurrency=3), None, Out(tmp_path)).answer(asked(*map(str, range(20))), 7)
    assert 1 < endpoint.most_at_once <= 3


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(StageError, match="OPENAI_API_KEY is not set"):
        EndpointJudge(config_of("http://x", key_env="OPENAI_API_KEY"), None, Out(tmp_path))


def test_a_judge_that_asks_nobody_needs_a_recording() -> None:
    with pytest.raises(ValidationError, match="name the recorded answers"):
        config_of("http://x", live=False)
    judge = TypeAdapter(JudgeConfig).validate_python({"kind": "endpoint", "url": "http://x/v1", "model": "m"})
    assert isinstance(judge, EndpointJudgeConfig)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("base"))


def test_the_model_judges_itself(tmp_path: Path, base: Model) -> None:
    voice = Voice.load(base, SpeakingConfig(threads=1, device="cpu"), Out(tmp_path))
    judge = judge_of(SelfJudgeConfig(), voice, None, Out(tmp_path))
    assert isinstance(judge, SelfJudge) and judge.name == "self"
    first = judge.answer(asked("Which colour?", "far too long " * 400), 5)
    assert first == judge.answer(asked("Which colour?", "far too long " * 400), 5)
    assert first[0] is not None and first[1] is None


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("It is kind.\nScore: 10", 1.0),
        ("Score: 1", 0.0),
        ("**Score: 4**\n", 1 / 3),
        ("Score: 7/10.", 2 / 3),
        ("Score: 11", None),
        ("Score: 0", None),
        ("Score: 7.5", None),
        ("Score: 7 or 8", None),
        ("Score: 7\nNo, wait.", None),
        ("I give it 7", None),
        ("", None),
    ],
)
def test_a_score_is_the_last_line_and_nothing_else(reply: str, score: float | None) -> None:
    assert score_in(reply) == (None if score is None else pytest.approx(score))


def test_scores_are_counted(tmp_path: Path) -> None:
    def grade(body: dict[str, Any]) -> Any:
        text = body["messages"][0]["content"]
        return (422, "too long") if "LONG" in text else "Score: 10" if "{kind}" in text else "I like it."

    with little_endpoint(grade) as endpoint:
        judge = EndpointJudge(config_of(endpoint), None, Out(tmp_path))
        question = asked("Is it {red}?")[0]
        made = score_all(judge, "Kindness.", [(question, "a {kind} word"), (question, "no"), (question, "LONG")])
    assert made.scores == [1.0, None, None]
    assert (made.unparsable, made.unanswered) == (1, 1)
    assert "User: Is it {red}?" in endpoint.asked[0]["messages"][0]["content"]
