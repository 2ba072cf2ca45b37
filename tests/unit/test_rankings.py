"""Rankings -> pairs: consistent with every ranking, by majority of several, and how far the raters agree."""

import json
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.contract import StageError
from containers.data.agreement import agreement_of, alpha_of, coincidences
from containers.data.rankings import Rankings
from containers.data.records import Record, Reject
from containers.data.source import SourceConfig

ASK = "What floats?"
ANSWERS = ["A boat.", "A stone.", "A duck.", "A loaf."]
SOURCE = SourceConfig(path="x")


def ranked(*rows: dict[str, Any], shape: str = "ranking", source: SourceConfig = SOURCE) -> tuple[Rankings, list[str]]:
    rankings = Rankings()
    records = [Record("r.jsonl", line, row) for line, row in enumerate(rows, start=1)]
    rejects = list(rankings.gather(0, shape, records, source))
    return rankings, [f"{reject.line}: {reject.reason}" for reject in rejects]


def row(**values: Any) -> dict[str, Any]:
    return {"prompt": ASK, "candidates": ANSWERS, **values}


def pairs_in(rankings: Rankings) -> list[tuple[str, str]]:
    return [(record.values["chosen"], record.values["rejected"]) for _, record in rankings.pairs()]


ranks = st.lists(st.integers(1, 6), min_size=2, max_size=6)


@given(ranks)
def test_one_ranking_gives_every_ordered_pair_and_no_tied_one(given_ranks: list[int]) -> None:
    answers = [f"answer {i}" for i in range(len(given_ranks))]
    rankings, rejects = ranked({"prompt": ASK, "candidates": answers, "ranks": given_ranks})
    rank = dict(zip(answers, given_ranks, strict=True))
    wanted = {
        tuple(sorted(two, key=rank.__getitem__)) for two in combinations(answers, 2) if len({*map(rank.get, two)}) > 1
    }
    assert not rejects and len(pairs_in(rankings)) == len(wanted) and set(pairs_in(rankings)) == wanted


@given(st.permutations(range(5)))
def test_places_in_order_and_ranks_say_the_same(order: list[int]) -> None:
    answers = [f"answer {i}" for i in range(5)]
    by_order, _ = ranked({"prompt": ASK, "candidates": answers, "ranking": order})
    by_rank, _ = ranked({"prompt": ASK, "candidates": answers, "ranks": [order.index(i) + 1 for i in range(5)]})
    assert pairs_in(by_order) == pairs_in(by_rank) and len(pairs_in(by_order)) == 10


@given(st.lists(st.permutations(range(4)), min_size=1, max_size=5), st.randoms())
def test_a_pair_is_what_most_raters_say_wherever_its_answers_stand(orders: list[list[int]], random: Any) -> None:
    rows = []
    for number, order in enumerate(orders):
        shown = random.sample(ANSWERS, 4)  # every rater sees the answers in another order
        ranking = [shown.index(ANSWERS[place]) for place in order]
        rows.append({"prompt": ASK, "candidates": shown, "ranking": ranking, "rater": number})
    rankings, rejects = ranked(*rows)
    found = set(pairs_in(rankings))
    assert not rejects and rankings.card()["items"] == 1
    for one, other in combinations(range(4), 2):
        votes = sum(order.index(one) < order.index(other) for order in orders)
        assert ((ANSWERS[one], ANSWERS[other]) in found) == (2 * votes > len(orders))
        assert ((ANSWERS[other], ANSWERS[one]) in found) == (2 * votes < len(orders))


def test_raters_without_a_name_are_different_people() -> None:
    rankings, rejects = ranked(row(ranking=[0, 1, 2, 3]), row(ranking=[3, 2, 1, 0]), row(ranking=[0, 1, 3, 2]))
    assert not rejects and rankings.card()["raters"] == 3
    assert set(pairs_in(rankings)) == {(ANSWERS[a], ANSWERS[b]) for a, b in combinations(range(4), 2)} - {
        (ANSWERS[2], ANSWERS[3])
    } | {(ANSWERS[3], ANSWERS[2])}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ranking": [0, 1, 2]}, "each place from 0 to 3 once"),
        ({"ranking": [0, 1, 2, 2]}, "each place from 0 to 3 once"),
        ({"ranking": [1, 2, 3, 4]}, "each place from 0 to 3 once"),
        ({"ranking": "0123"}, "each place from 0 to 3 once"),
        ({"ranking": [True, 0, 2, 3]}, "each place from 0 to 3 once"),
        ({"ranks": [1, 2]}, "no number for each of the 4"),
        ({"ranks": [1, 2, 3, float("nan")]}, "no number for each of the 4"),
        ({"ranks": [1, 2, 3, None]}, "no number for each of the 4"),
        ({"ranks": [1, 2, 3, 4], "ranking": [0, 1, 2, 3]}, "both `ranking` and `ranks`"),
        ({"candidates": ["A boat."], "ranking": [0]}, "no list of two answers"),
        ({"candidates": "A boat.", "ranking": [0]}, "no list of two answers"),
        ({"candidates": ["A boat.", "A boat. "], "ranking": [0, 1]}, "stands twice"),
        ({"candidates": ["A boat.", ""], "ranking": [0, 1]}, "is empty"),
        ({"candidates": ["A boat.", 7], "ranking": [0, 1]}, "holds no text"),
        ({"prompt": None, "ranking": [0, 1, 2, 3]}, "not a list of messages"),
        ({"version": 2, "ranking": [0, 1, 2, 3]}, "version 2"),
    ],
)
def test_a_ranking_that_is_none_is_rejected_with_its_line(values: dict[str, Any], reason: str) -> None:
    rankings, rejects = ranked(row(ranking=[0, 1, 2, 3]), row(**values))
    assert len(rejects) == 1 and rejects[0].startswith("2: ") and reason in rejects[0]
    assert len(pairs_in(rankings)) == 6


def test_nobody_votes_twice() -> None:
    rankings, rejects = ranked(row(ranking=[0, 1, 2, 3], rater="ann"), row(ranking=[3, 2, 1, 0], rater="ann"))
    assert rejects == ["2: a second ranking of the same candidates by the same rater"]
    assert pairs_in(rankings)[0] == ("A boat.", "A stone.")


def test_what_is_not_ranked_yet_is_counted_and_no_fault() -> None:
    rankings, rejects = ranked(row(ranking=None, rater=None), row(ranking=[0, 1, 2, 3]))
    assert not rejects and rankings.card()["unranked"] == 1 and len(pairs_in(rankings)) == 6
    nobody, _ = ranked(row(), row(prompt="What sinks?"))
    with pytest.raises(StageError, match="none of the 2 sets of candidates is ranked yet"):
        list(nobody.pairs())


def test_no_more_rankings_are_taken_than_wanted() -> None:
    rows = [row(prompt=f"What floats {i}?", ranking=[0, 1, 2, 3]) for i in range(5)]
    rankings, _ = ranked(*rows, source=SOURCE.revise(max_rows=2))
    assert rankings.card()["rankings"] == 2


# Label Studio


def task(*results: Any, **data: Any) -> dict[str, Any]:
    annotations = [{"id": n, "completed_by": n, "result": result} for n, result in enumerate(results, start=1)]
    return {"id": 1, "data": {"prompt": ASK, "candidates": ANSWERS, **data}, "annotations": annotations}


def ranker(*ids: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "type": "ranker",
            "from_name": "ranking",
            "to_name": "answers",
            "value": {"ranker": {"ranking": [*ids], **more}},
        }
    ]


def test_label_studios_export_is_read() -> None:
    rankings, rejects = ranked(task(ranker("2", "0", "1", "3"), ranker("2", "1", "0", "3")), shape="label_studio")
    assert not rejects and rankings.card()["raters"] == 2
    assert pairs_in(rankings) == [
        ("A duck.", "A boat."), ("A boat.", "A loaf."), ("A duck.", "A stone."), ("A stone.", "A loaf."),
        ("A duck.", "A loaf."),
    ]  # fmt: skip
    assert rankings.card()["without_majority"] == 1


def test_label_studios_pairwise_choice_is_read() -> None:
    chosen = [{"type": "pairwise", "value": {"selected": "right"}}]
    rankings, _ = ranked(task(chosen, candidates=ANSWERS[:2]), shape="label_studio")
    assert pairs_in(rankings) == [("A stone.", "A boat.")]


@pytest.mark.parametrize(
    ("given_task", "reason"),
    [
        ({"data": {}, "annotations": 3}, "JSON export"),
        (task(ranker("0", "1")), "each place from 0 to 3 once"),
        (task(ranker("0", "1", "2", "x")), "each place from 0 to 3 once"),
        (task(ranker("0", "1", "2", "3", other=[])), "each place from 0 to 3 once"),
        (task([{"type": "pairwise", "value": {"selected": "left"}}]), "each place from 0 to 3 once"),
    ],
)
def test_a_task_that_holds_no_ranking_is_rejected(given_task: dict[str, Any], reason: str) -> None:
    _, rejects = ranked(given_task, shape="label_studio")
    assert len(rejects) == 1 and reason in rejects[0]


def test_a_skipped_task_is_not_ranked_yet() -> None:
    skipped = task(ranker("0", "1", "2", "3"))
    skipped["annotations"][0]["was_cancelled"] = True
    rankings, rejects = ranked(skipped, task([]), task(), shape="label_studio")
    assert not rejects and rankings.unranked == 3 and not rankings.items


NAMES = st.sampled_from(["data", "annotations", "result", "value", "ranker", "type", "completed_by", "candidates"])
LEAVES = st.none() | st.integers() | st.text(max_size=3)
NESTED = st.recursive(LEAVES, lambda c: st.lists(c, max_size=3) | st.dictionaries(NAMES, c), max_leaves=12)


@given(NESTED)
def test_whatever_an_export_holds_it_is_rejected_and_nothing_worse(value: Any) -> None:
    values = {"data": value, "annotations": [value]} if not isinstance(value, dict) else value
    for shape in ("ranking", "label_studio"):
        found = list(Rankings().gather(0, shape, [Record("r.json", 1, values), Reject("r.json", 2, "bad")], SOURCE))
        assert found[-1] == Reject("r.json", 2, "bad")
        json.dumps(found)


# Agreement


def test_alpha_is_krippendorffs() -> None:
    """The worked example of Krippendorff 2011, section C: four observers, twelve units, missing values: 0.743."""
    sheets = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[value for value in unit if value is not None] for unit in zip(*sheets, strict=True)]
    assert alpha_of(coincidences(unit for unit in units if len(unit) > 1)) == pytest.approx(0.743, abs=5e-4)


def test_agreement_does_not_depend_on_which_answer_stands_first() -> None:
    units = [[1, 1, -1], [1, 1], [-1, 0], [1]]
    mirrored = [[-value for value in unit] for unit in units]
    assert agreement_of(units) == agreement_of(mirrored)
    assert agreement_of(units)["agreeing_share"] == pytest.approx(2 / 5)
    assert agreement_of([[1, 1], [-1, -1]])["alpha"] == 1
    assert agreement_of([[1, 1], [1, 1]]) == {"alpha": 1, "agreeing_share": 1, "compared": 2}
    assert agreement_of([[1], [-1]]) == {"alpha": None, "agreeing_share": None, "compared": 0}
    assert agreement_of([[0, 0]])["alpha"] is None


@given(st.lists(st.tuples(st.sampled_from([-1, 1]), st.sampled_from([-1, 1])), min_size=1, max_size=30))
def test_alpha_stays_within_its_bounds(units: list[tuple[int, int]]) -> None:
    alpha = agreement_of(units)["alpha"]
    assert alpha is not None and -1 <= alpha <= 1
