"""certify: the certificate that sft would make, without its weights; what does not hold is told, not raised."""

import json
from pathlib import Path

import pytest

from containers.certify.contract import CertifyConfig, CertifyInputs
from containers.contract import Dataset, Tokenizer, digest_of
from containers.formats import ChatFormat, identity_of
from containers.sft.lessons import read_lessons
from tests.by_hand import run_by_hand, try_by_hand
from tests.stages.toy_chat import CHATML, chats, write_chats, write_tokenizer

CONFIG = CertifyConfig(max_length=64)


def tokenizer(folder: Path, template: str = CHATML) -> Tokenizer:
    write_tokenizer(folder, template)
    return Tokenizer.of(folder, **identity_of(folder))


@pytest.fixture
def lessons(tmp_path: Path) -> Dataset:
    long = [{"role": "user", "content": "long?"}, {"role": "assistant", "content": "word " * 200}]
    late = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "late"}]
    return write_chats(tmp_path / "data", [*chats(14), long, late])


def test_two_runs_in_two_folders_give_equal_bytes_and_the_counts_of_training(tmp_path: Path, lessons: Dataset) -> None:
    inputs = CertifyInputs(base=tokenizer(tmp_path / "words"), instructions=lessons)
    first, result = run_by_hand(tmp_path / "one", "certify", CONFIG, inputs)
    second, _ = run_by_hand(tmp_path / "two", "certify", CONFIG, inputs)
    assert first == second and digest_of(tmp_path / "one/outputs") == digest_of(tmp_path / "two/outputs")
    seen = read_lessons(lessons, "train", ChatFormat.load(inputs.base.path), 64)
    assert first.broken == () and (first.conversations, first.truncated, first.dropped_empty) == (15, 1, 1)
    assert first.trained_tokens == sum(sum(lesson.trained) for lesson in seen.kept)
    assert 0 < result.metrics["trained_share"] == first.trained_tokens / first.tokens < 1
    record = json.loads((tmp_path / "one/outputs/card/certificate.json").read_text())
    assert (record["dataset"], record["tokenizer"]) == (lessons.digest, inputs.base.tokenizer)
    assert "<b>It is red.</b>" in (tmp_path / "one/outputs/card/mask.html").read_text()


def test_what_does_not_hold_is_told_with_its_page(tmp_path: Path, lessons: Dataset) -> None:
    endless = tokenizer(tmp_path / "words", CHATML.replace("<|im_end|>", ""))
    made, _ = run_by_hand(tmp_path / "run", "certify", CONFIG, CertifyInputs(base=endless, instructions=lessons))
    assert len(made.broken) == 1 and "never learn to stop" in made.broken[0]
    assert (tmp_path / "run/outputs/card/mask.html").is_file()


def test_conversations_without_an_answer_are_refused(tmp_path: Path) -> None:
    mute = write_chats(tmp_path / "data", [[{"role": "user", "content": "anyone?"}]] * 4)
    inputs = CertifyInputs(base=tokenizer(tmp_path / "words"), instructions=mute)
    code, said = try_by_hand(tmp_path / "run", "certify", CONFIG, inputs)
    assert code == 2 and "assistant message" in said
