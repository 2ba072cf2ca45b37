"""The builtin worlds: reproducible, correct (every answer worked out anew from its question), and honestly held out."""

import re
from collections import Counter, defaultdict
from functools import cache
from typing import Any

import pytest

from containers.contract import Role, StageError
from containers.data.worlds import WORLDS, generate
from containers.data.worlds.cast import CAST, CHOICES
from containers.data.worlds.facts import ASKS, OPENINGS
from containers.data.worlds.sums import owner, owner_of_difference
from containers.data.worlds.world import NAMES, RUN, runs_of
from containers.evaluate.refusals import is_refusal
from containers.formats import COLUMNS, SIDE_COLUMNS

ALL = [(word, role) for word, world in WORLDS.items() for role in world.sizes]
SUMS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "x": lambda a, b: a * b, "/": lambda a, b: a / b}
SIGNS = {"plus": "+", "minus": "-", "times": "x", "divided by": "/"}
Row = dict[str, Any]


@cache
def rows_of(word: str, role: Role) -> tuple[Row, ...]:
    return tuple(generate(word, role, 0))


def question_of(row: Row) -> str:
    return (row.get("messages") or row["prompt"])[0]["content"]


def text_of(row: Row) -> str:
    turns = [m["content"] for column in ("messages", "prompt", "chosen") for m in row.get(column, ())]
    return row.get("text") or " ".join(turns)


def numbers_in(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


@pytest.mark.parametrize(("word", "role"), ALL)
def test_the_same_seed_gives_the_same_rows(word, role):
    again = [row for _, row in zip(range(50), generate(word, role, 0), strict=False)]
    other = [row for _, row in zip(range(50), generate(word, role, 1), strict=False)]
    assert again == list(rows_of(word, role)[:50])
    assert again != other


@pytest.mark.parametrize(("word", "role"), ALL)
def test_rows_have_the_columns_of_their_role(word, role):
    rows = rows_of(word, role)
    assert {tuple(sorted(row)) for row in rows} == {tuple(sorted({*COLUMNS[role], *SIDE_COLUMNS, "split"}))}
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["source"] == f"builtin:{word}" for row in rows)
    assert all(text_of(row).strip() and "{" not in text_of(row) and "[" not in text_of(row) for row in rows)
    if role != "corpus":
        assert all(row["task"].startswith(f"{word}.") for row in rows)
    if role == "problems":
        assert all(row["answer"] and [m["role"] for m in row["messages"]] == ["user"] for row in rows)
    if role == "instructions":
        assert all([m["role"] for m in row["messages"]] == ["user", "assistant"] for row in rows)


@pytest.mark.parametrize(("word", "role"), ALL)
def test_a_world_makes_as_many_rows_as_it_says(word, role):
    count = Counter(row["split"] for row in rows_of(word, role))
    assert count["train"] == WORLDS[word].sizes[role]
    if WORLDS[word].held_out:
        assert count["test"] >= 4 and count["validation"] >= 5


@pytest.mark.parametrize(("word", "role"), ALL)
def test_no_row_appears_twice(word, role):
    seen = Counter((text_of(row), str(row.get("rejected"))) for row in rows_of(word, role))
    assert seen.most_common(1)[0][1] == 1


@pytest.mark.parametrize(("word", "role"), ALL)
def test_training_shares_no_long_run_of_words_with_any_test_of_its_world(word, role):
    tests = [row for other in WORLDS[word].sizes for row in rows_of(word, other) if row["split"] == "test"]
    held_out = set().union(*(runs_of(text_of(row)) for row in tests)) if tests else set()
    shared = [row for row in rows_of(word, role) if row["split"] == "train" and held_out & runs_of(text_of(row))]
    assert not shared, f"{RUN} words in a row: {text_of(shared[0])}"


@pytest.mark.parametrize("word", [word for word, world in WORLDS.items() if "problems" in world.sizes])
def test_no_training_row_asks_a_test_question(word):
    asked = {question_of(row).casefold() for row in rows_of(word, "problems") if row["split"] == "test"}
    for role in ("problems", "instructions"):
        trained = {question_of(row).casefold() for row in rows_of(word, role) if row["split"] == "train"}
        assert not asked & trained
    corpus = " ".join(row["text"].casefold() for row in rows_of(word, "corpus") if row["split"] == "train")
    assert not [question for question in asked if question in corpus]


def worked_out(task: str, question: str) -> float:  # noqa: PLR0911 - one way out per kind of problem
    """Return the answer to a question with numbers, from the question alone."""
    given = numbers_in(question)
    if task.startswith("arithmetic."):
        for word, sign in SIGNS.items():
            question = question.replace(word, sign)
        a, sign, b = re.search(r"(\d+) ?([-+x/]) ?(\d+)", question).groups()
        return SUMS[sign](int(a), int(b))
    if task == "travel.time":
        speed, distance = [n for n in given if n != 1 or "1 hour" not in question]
        return distance / speed
    if task == "travel.distance":
        speed, hours = [n for n in given if n != 1]
        return speed * hours
    if task == "travel.speed":
        distance = int(re.search(r"(\d+) km", question)[1])
        return distance / int(re.search(r"(\d+) hours", question)[1])
    if task == "shop.total":
        return given[0] * given[1]
    if task == "shop.sum":
        return given[0] + given[1]
    if task == "shop.change":
        return max(given) - min(given)
    count = int(re.search(r"(\d+) (?!dollars)[a-z]+", question)[1])
    price = int(re.search(r"(?:for|at|each|costs) (\d+) dollars", question)[1])
    return int(re.search(r"(?:with|has|gives) (\d+) dollars", question)[1]) - count * price


@pytest.mark.parametrize("word", ["arithmetic", "travel", "shop"])
@pytest.mark.parametrize("role", ["problems", "instructions"])
def test_every_answer_with_numbers_is_right(word, role):
    for row in rows_of(word, role):
        assert str(worked_out(row["task"], question_of(row))).removesuffix(".0") == row["answer"], row


@pytest.mark.parametrize("word", ["arithmetic", "travel", "shop", "facts"])
def test_every_worked_reply_ends_in_the_answer(word):
    for row in rows_of(word, "instructions"):
        reply = row["messages"][1]["content"]
        last = numbers_in(reply)[-1:] if word != "facts" else [row["answer"]] if row["answer"] in reply else []
        assert [str(n) for n in last] == [row["answer"]], row


@pytest.mark.parametrize("word", ["arithmetic", "travel", "shop"])
@pytest.mark.parametrize("role", ["instructions", "corpus"])
def test_every_equation_in_a_worked_reply_holds(word, role):
    found = 0
    for row in rows_of(word, role):
        for line in re.findall(r"\d+ [-+x/] \d+(?: = \d+(?: [-+] \d+)?)+", text_of(row)):
            values = {eval(side.replace("x", "*")) for side in line.split(" = ")}
            assert len(values) == 1, line
            found += 1
    assert found > 500


def test_every_fact_is_one_of_the_cast_and_told_in_the_stories():
    truth = {hero.name: hero for hero in CAST}
    for row in rows_of("facts", "problems"):
        name = next(name for name in truth if name in question_of(row))
        assert row["answer"] == getattr(truth[name], row["task"].removeprefix("facts."))
    stories = [row["text"] for row in rows_of("stories", "corpus") if row["split"] == "train"]
    told = [sentence.casefold() for story in stories for sentence in story.split(".")]
    for hero in CAST:
        mentions = [sentence for sentence in told if hero.name.casefold() in sentence]
        for kind in CHOICES:
            assert sum(getattr(hero, kind).casefold() in sentence for sentence in mentions) >= 20, (hero, kind)


def test_facts_are_tested_in_combinations_of_words_that_training_does_not_use():
    cells: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for role in ("problems", "instructions"):
        for row in rows_of("facts", role):
            kind, question = row["task"].removeprefix("facts."), question_of(row).casefold()
            hero = next(hero for hero in CAST if hero.name in question_of(row))
            asks = [ask.format(name=hero.name).casefold() for ask in ASKS[kind]]
            opening = next(o for o in sorted(OPENINGS, key=len)[::-1] if question.startswith(o.casefold()[:-6]))
            cells[row["split"]].add((OPENINGS.index(opening), next(i for i, ask in enumerate(asks) if ask in question)))
    assert cells["test"] and not cells["test"] & cells["train"]


NUMBERED = (
    *(f"arithmetic.{kind}" for kind in ("add", "subtract", "multiply", "divide")),
    *(f"travel.{kind}" for kind in ("time", "distance", "speed")),
    *(f"shop.{kind}" for kind in ("total", "sum", "change", "two_step")),
)


@pytest.mark.parametrize("task", NUMBERED)
def test_a_test_question_has_numbers_that_its_training_does_not(task):
    word = task.partition(".")[0]
    numbers: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for role in ("problems", "instructions"):
        for row in rows_of(word, role):
            if row["task"] == task:
                count = re.search(r"(\d+) (?!dollars)[a-z]+", question_of(row)) if word == "shop" else None
                given = sorted(numbers_in(question_of(row)))
                numbers[row["split"]].add((int(count[1]) if count else 0, *given))
    assert numbers["test"] and not numbers["test"] & numbers["train"]


@pytest.mark.parametrize(("a", "b"), [(9, 9), (2, 2)])
def test_the_tables_are_taught_whole(a, b):
    assert owner("add", a, b) == owner_of_difference("subtract", a + b, b) == "train"


@pytest.mark.parametrize("word", ["travel", "shop"])
@pytest.mark.parametrize("role", ["problems", "instructions"])
def test_test_questions_are_about_people_that_no_training_question_knows(word, role):
    for row in rows_of(word, role):
        strangers = set(NAMES["train" if row["split"] == "test" else "test"])
        assert not strangers & set(re.findall(r"\w+", question_of(row))), row


def test_two_steps_are_thin_in_lessons_and_absent_from_the_corpus():
    trained = [row for row in rows_of("shop", "instructions") if row["split"] == "train"]
    thin = [row for row in trained if row["task"] == "shop.two_step"]
    assert 0 < len(thin) / len(trained) < 0.1
    assert not [row for row in rows_of("shop", "corpus") if re.search(r"Total = [^A]*dollars\. Change", row["text"])]
    problems = Counter(row["task"] for row in rows_of("shop", "problems") if row["split"] == "test")
    assert problems["shop.two_step"] >= 120


@pytest.mark.parametrize("word", ["desk", "harm"])
def test_a_preference_is_between_two_different_replies(word):
    for row in rows_of(word, "preferences"):
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert chosen.strip() and rejected.strip() and chosen != rejected


def test_only_harmful_requests_are_refused():
    for word, world in WORLDS.items():
        if "instructions" in world.sizes:
            for row in rows_of(word, "instructions"):
                assert is_refusal(row["messages"][1]["content"]) == (row["task"] == "harm.refuse"), row
    for row in rows_of("harm", "preferences"):
        assert is_refusal(row["chosen"][0]["content"]) == (row["task"] == "harm.refuse"), row
        assert is_refusal(row["rejected"][0]["content"]) == (row["task"] == "harm.lookalike"), row


def test_a_warm_reply_is_polite_and_in_steps_and_the_worse_one_is_not():
    for row in rows_of("desk", "preferences"):
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert "sorry" in chosen and "\n1. " in chosen and "\n3. " in chosen
        assert "sorry" not in rejected and "\n1. " not in rejected


def test_an_unknown_world_and_a_missing_role_are_named():
    with pytest.raises(StageError, match="did you mean 'travel'"):
        generate("travle", "corpus", 0)
    with pytest.raises(StageError, match="'stories' has no problems: it has corpus"):
        generate("stories", "problems", 0)
