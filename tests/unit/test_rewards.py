"""Rewards: every builtin case holds, planted wrong ones are named, a person's own function is refused in words."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from containers.contract import Files, StageError
from containers.grpo.config import AnswerReward, FormatReward, FunctionReward, GRPOConfig, LengthReward
from containers.grpo.functions import Own
from containers.grpo.rewards import Answers, Case, Form, Length, check_cases, is_correct
from containers.out import Out

GOOD = """
def score(completions, answer, **columns):
    return [float(turns[-1]["content"].strip() == right) for turns, right in zip(completions, answer)]

def constant(completions, **columns):
    return [1.0 for _ in completions]

CASES = {"score": [
    {"name": "good", "reply": "24", "expected": "24", "reward": 1},
    {"name": "adversarial: a space", "reply": "2 4", "expected": "24", "reward": 0},
]}
"""


def own(folder: Path, text: str, name: str = "score") -> Own:
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files/mine.py").write_text(text)
    config = FunctionReward.model_validate({"path": f"elsewhere/mine.py:{name}"})
    return Own(config, Files.of(folder / "files"), Out(folder / "out"))


def called(reward: Any, reply: str, expected: str = "", tokens: int = 1) -> float | None:
    found: float | None = reward(
        prompts=[[{"role": "user", "content": "?"}]], completions=[[{"role": "assistant", "content": reply}]],
        completion_ids=[[0] * tokens], answer=[expected], task=[""],
    )[0]  # fmt: skip
    return found


@pytest.mark.parametrize(
    "reward",
    [
        Answers(AnswerReward()),
        Length(LengthReward(min_tokens=4, max_tokens=40)),
        Form(FormatReward(), "Put the answer into \\boxed{}."),
        Form(FormatReward(), "End with #### and the answer."),
        Form(FormatReward(), "Think step by step."),
    ],
)
def test_builtin_cases_hold_and_are_of_every_kind(reward: Any) -> None:
    check_cases(reward, reward.cases)
    kinds = {case.name.split(":")[0] for case in reward.cases}
    assert {"good", "bad", "adversarial"} <= kinds


@pytest.mark.parametrize(
    ("reply", "expected", "right"),
    [
        ("The total is $1,234.50.", "1234.5", True),
        ("48/2 = 24\n#### 24", "24", True),
        ("\\boxed{\\frac{3}{4}}", "0.75", True),
        ("3 hours at 60 km/h makes 180 km", "180", True),
        ("Birch Hill", "Birch Hill", True),
        ("Lars lives in Birch Hill.", "Birch Hill", True),
        ("Oak Hill", "Birch Hill", False),
        ("$x^2 + 2x + 1$", "$(x+1)^2$", True),
        ("$x^2 + 2x$", "$(x+1)^2$", False),
        ("I think 23 or 24 or 25", "24", False),
    ],
)
def test_right_is_what_evaluate_counts_and_equal_expressions(reply: str, expected: str, right: bool) -> None:
    assert is_correct(reply, expected) == right


def test_a_wrong_case_is_named() -> None:
    reward = Answers(AnswerReward())
    with pytest.raises(StageError, match=r"answer gives 0.0 where its case 'good: wrong' wants 1"):
        check_cases(reward, [Case("good: wrong", "23", 1, "24")])


def test_length_falls_linearly() -> None:
    reward = Length(LengthReward(min_tokens=10, max_tokens=20))
    assert [called(reward, "x", tokens=n) for n in (0, 5, 10, 20, 30, 40, 99)] == [0, 0.5, 1, 1, 0.5, 0, 0]


def test_a_format_without_pattern_follows_the_instruction_or_is_refused() -> None:
    assert called(Form(FormatReward(pattern=r"<think>.+</think>.+"), ""), "<think>6 x 2\n</think> 12") == 1
    assert called(Form(FormatReward(pattern=r"<think>.+</think>.+"), ""), "12") == 0
    assert called(Form(FormatReward(), "Put it in \\boxed{}"), "12") == 0
    with pytest.raises(StageError, match="give a pattern"):
        Form(FormatReward(), "Be nice.")
    with pytest.raises(ValidationError, match="pattern"):
        FormatReward(pattern="(")


def test_a_function_of_ones_own_is_called_as_trl_calls_one(tmp_path: Path) -> None:
    reward = own(tmp_path, GOOD)
    check_cases(reward, reward.cases)
    assert (called(reward, " 24 ", "24"), called(reward, "25", "24")) == (1, 0)
    assert len(reward.cases) == 2


def test_a_function_that_fails_its_case_is_refused(tmp_path: Path) -> None:
    reward = own(tmp_path, GOOD.replace(".strip() ==", ".strip() !="))
    with pytest.raises(StageError, match="'good'"):
        check_cases(reward, reward.cases)


def test_a_function_without_cases_is_warned_about(tmp_path: Path) -> None:
    own(tmp_path, GOOD, "constant")
    assert "has no CASES" in (tmp_path / "out/events.jsonl").read_text()


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (GOOD, "absent", "no function 'absent'"),
        ("def score(:", "score", "does not import"),
        ("import nothing_of_this_name", "score", "does not import"),
        ("def score(**_): return []", "score", "gave 0 for 1"),
        ("def score(**_): return 1 / 0", "score", "ZeroDivisionError"),
        ("def score(**_): return [0]\nCASES = [{'reply': 3}]", "score", "CASES"),
    ],
)
def test_broken_functions_are_refused_in_words(tmp_path: Path, text: str, name: str, said: str) -> None:
    with pytest.raises(StageError, match=said):
        called(own(tmp_path, text, name), "24")


def test_the_name_of_a_function_counts_and_where_its_file_lies_does_not() -> None:
    made = GRPOConfig.model_validate({"rewards": [{"kind": "function", "path": "/a/b/mine.py:score", "weight": 2}]})
    assert made.rewards[0].function == "score" and made.rewards[0].file == "mine.py"  # type: ignore[union-attr]
    again = GRPOConfig.model_validate(made.model_dump(mode="json"))
    assert again == made
    assert FunctionReward.model_validate({"path": "my.rewards:score"}).file == "rewards.py"
    with pytest.raises(ValidationError, match="names no function"):
        FunctionReward.model_validate({"path": "mine.py"})


def test_configs_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValidationError, match="needs `judge`"):
        GRPOConfig.model_validate({"rewards": [{"kind": "judge", "criterion": "Is it kind?"}]})
    with pytest.raises(ValidationError, match="cannot be shared"):
        GRPOConfig(prompts_per_rollout=3, answers_per_prompt=3, steps_per_rollout=2)
    with pytest.raises(ValidationError, match="does not divide"):
        GRPOConfig(micro_batch_size=7)
