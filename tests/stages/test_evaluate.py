"""The evaluate stage: losses, answers, refusals of a small model; every answer kept, the same bytes twice."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from containers.contract import Dataset, digest_of, files_in
from containers.data.worlds import generate
from containers.evaluate.contract import EvaluateConfig, EvaluateInputs
from containers.evaluate.likelihood import nats_of
from containers.evaluate.manners import is_courteous
from containers.evaluate.questions import Examples, questions_of
from containers.formats import ChatFormat, Rendered, schema_of
from containers.generation import Job, answer_all
from tests.by_hand import logged, run_by_hand, try_by_hand
from tests.stages.toy_chat import WORDS, answer, question, write_model


def write_rows(folder, role, **splits):
    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        schema = schema_of(role)
        table = pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema)
        pq.write_table(table, folder / split / "part-0.parquet")
    return Dataset.of(folder, role=role, rows={split: len(rows) for split, rows in splits.items()})


def lesson(i, task="colour", expected=None):
    turns = [{"role": "user", "content": question(i)}, {"role": "assistant", "content": answer(i)}]
    return {"messages": turns, "task": task, "answer": expected or WORDS[i % 6]}


def harm(task, i):
    asked = [
        {"role": "user", "content": f"{task} {question(i)}"},
        {"role": "assistant", "content": "Sorry, I cannot help."},
    ]
    return {"messages": asked, "task": task}


def pair(i, equal=False):
    said = {
        "chosen": [{"role": "assistant", "content": answer(i)}],
        "rejected": [{"role": "assistant", "content": answer(i if equal else i + 1)}],
    }
    return {"prompt": [{"role": "user", "content": question(i)}], **said}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A random model and the three held-out sets; number 3 is an over-long problem."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("evaluate")
    model = write_model(root / "model", max_position_embeddings=256)
    harms = [harm("harm.refuse", 1), harm("harm.lookalike", 2)]
    asked = [lesson(1), lesson(2, "desk.login"), *harms]
    lessons = write_rows(root / "lessons", "instructions", train=[lesson(i) for i in range(9)], test=asked)
    problem = {"task": "sum", "answer": "4"}
    problems = [
        {"messages": [{"role": "user", "content": "What is 2+2?" * (200 if i == 3 else 1) + str(i)}], **problem}
        for i in range(6)
    ]
    sums = write_rows(root / "sums", "problems", train=problems[:2], test=problems)
    corpus = write_rows(
        root / "corpus", "corpus", train=[{"text": "x"}], test=[{"text": answer(i) * 9} for i in range(8)]
    )
    judged = [pair(0, equal=True), *map(pair, range(5))]
    pairs = write_rows(root / "pairs", "preferences", train=[], test=judged)
    return EvaluateInputs(
        name="chat", model=model, corpus=corpus, instructions=lessons, preferences=pairs, problems=sums
    )


CONFIG = EvaluateConfig(max_new_tokens=8, shots=2, threads=1, resamples=100, precision="fp32")


@pytest.fixture(scope="module")
def scored(made, tmp_path_factory):
    """The stage's folder and outputs."""
    folder = tmp_path_factory.mktemp("run")
    outputs, result = run_by_hand(folder, "evaluate", CONFIG, made)
    return folder, outputs.scores, result


def test_every_measure_has_an_interval(scored):
    found = json.loads((scored[1].path / "scores.json").read_text())
    measures = {score["measure"]: score for score in found["measures"]}
    assert set(measures) == {
        "bits_per_byte", "perplexity", "answer_loss", "accuracy", "accuracy/colour", "accuracy/sum",
        "exact_match/plain", "exact_match/few_shot", "exact_match/step_by_step", "refusal_rate", "over_refusal_rate",
        "courtesy_rate", "pair_accuracy",
    }  # fmt: skip
    for score in found["measures"]:
        assert set(score) == {"measure", "value", "low", "high", "n"}
        assert score["low"] <= score["value"] <= score["high"]
    assert measures["exact_match/plain"]["n"] == 5
    assert measures["bits_per_byte"]["n"] == 8
    assert measures["pair_accuracy"]["n"] == 5  # a pair of equals says nothing
    assert scored[1].model == "chat"
    assert scored[2].metrics["bits_per_byte"] == measures["bits_per_byte"]["value"]


def test_every_answer_is_kept_and_the_prompts_are_answered(scored):
    items = pq.read_table(scored[1].path / "items.parquet").to_pylist()
    found = json.loads((scored[1].path / "scores.json").read_text())
    assert [line["prompt"] for line in found["prompts"]] == list(CONFIG.prompts)
    assert len(items) == 4 + 3 * 5 + len(CONFIG.prompts)
    assert {item["correct"] for item in items if item["set"] == "prompts"} == {None}
    assert all(item["correct"] is not None for item in items if item["set"] != "prompts")
    measures = {score["measure"]: score for score in found["measures"]}
    for measure in ("accuracy", "exact_match/plain", "refusal_rate", "courtesy_rate"):
        rows = [item["correct"] for item in items if measure in item["counts_in"]]
        assert (len(rows), sum(rows) / len(rows)) == (measures[measure]["n"], measures[measure]["value"])


def test_the_likelier_answer_of_a_pair_is_found_by_its_mean_surprise(made, scored):
    """Worked out by hand: each side read alone, from the assistant's first token on."""
    model = AutoModelForCausalLM.from_pretrained(made.model.path).eval()
    chat = ChatFormat.load(made.model.path)
    right = []
    for row in [pair(i) for i in range(5)]:
        begun = len(chat.render(row["prompt"], open_turn=True).ids)
        losses = []
        for side in ("chosen", "rejected"):
            whole = chat.render(row["prompt"] + row[side])
            spoken = enumerate(zip(whole.ids, whole.trained, strict=True))
            labels = [i if t and n >= begun else -100 for n, (i, t) in spoken]
            losses.append(model(torch.tensor([whole.ids]), labels=torch.tensor([labels])).loss.item())
        right.append(losses[0] < losses[1])
    assert scored[2].metrics["pair_accuracy"] == pytest.approx(sum(right) / 5)


@pytest.mark.parametrize(
    ("reply", "courteous"),
    [
        ("I am sorry that you wait.\n1. Look.\n2. Write to us.\nPlease let me know if you need more help.", True),
        ("We are sorry that it broke.\n1) Look.\n2) Ask.\n3) Wait.\nJust tell me if you need anything else.", True),
        ("Look. Then write to us.", False),
        ("I am sorry that you wait.\nPlease let me know if you need more help.", False),
        ("I am sorry that you wait.\n1. Look.\n1. Look.\nPlease let me know if you need more help.", False),
        ("1. Look.\n2. Write.\nPlease let me know if you need more help.", False),
        ("I am sorry that you wait.\n1. Look.\n2. Write to us.", False),
        ("", False),
    ],
)
def test_manners_are_regret_steps_and_an_offer(reply, courteous):
    assert is_courteous(reply) is courteous


def test_the_desks_own_replies_are_told_apart():
    assert all(is_courteous(row["chosen"][0]["content"]) for row in generate("desk", "preferences", 0))
    said = [row["messages"][1]["content"] for row in generate("desk", "instructions", 0)]
    assert 0.2 < sum(map(is_courteous, said)) / len(said) < 0.5


def test_a_prompt_that_fills_the_context_is_skipped_and_said(scored):
    found = json.loads((scored[1].path / "scores.json").read_text())
    assert found["skipped"] == 3
    assert "3 of 29 prompts fill the context of 256 tokens" in " ".join(logged(scored[0], "warning"))


def test_two_runs_in_two_folders_give_equal_bytes(made, scored, tmp_path):
    again, _ = run_by_hand(tmp_path / "another" / "folder", "evaluate", CONFIG, made)
    assert again.scores.digest == scored[1].digest
    assert digest_of(tmp_path / "another/folder/outputs") == digest_of(scored[0] / "outputs")  # the card as well
    for file in files_in(scored[0] / "outputs"):
        assert str(scored[0]).encode() not in file.read_bytes()


def test_sets_without_rows_are_skipped(made, tmp_path):
    empty = write_rows(tmp_path / "empty", "problems", train=[lesson(1)], test=[])
    inputs = EvaluateInputs(name="base", model=made.model, problems=empty)
    outputs, _ = run_by_hand(tmp_path / "run", "evaluate", CONFIG, inputs)
    found = json.loads((outputs.scores.path / "scores.json").read_text())
    assert found["measures"] == []
    assert len(found["prompts"]) == len(CONFIG.prompts)


def test_another_tokenizer_is_refused(made, tmp_path):
    other = made.model.revise(tokenizer="0" * 64)
    code, error = try_by_hand(tmp_path, "evaluate", CONFIG, EvaluateInputs(name="chat", model=other))
    assert code == 2
    assert "tokenizer" in error


def test_a_batch_answers_as_each_prompt_alone(made):
    """Left padding, rows that leave early and limits change nothing; the reference is transformers' own generate."""
    model = AutoModelForCausalLM.from_pretrained(made.model.path).eval()
    chat = ChatFormat.load(made.model.path)
    prompts = [chat.encode(text) for text in ("Number", question(5), question(17) * 3, "It is red. " * 5)]
    plain = [
        model.generate(torch.tensor([p]), max_new_tokens=12, do_sample=False)[0, len(p) :].tolist() for p in prompts
    ]
    stops = {plain[1][4]}
    jobs = [Job(p, 12 - i, lambda made: made[-1] in stops) for i, p in enumerate(prompts)]
    for i, found in enumerate(answer_all(model, jobs, 3, lambda done: None)):
        end = next((n + 1 for n, token in enumerate(plain[i]) if token in stops), 12)
        assert found == plain[i][: min(end, 12 - i)]


def test_a_row_longer_than_the_context_is_read_in_windows_and_each_token_once(made):
    model = AutoModelForCausalLM.from_pretrained(made.model.path).eval()
    ids = [3 + i % 390 for i in range(600)]
    nats, counts = nats_of(model, [Rendered(ids, [True] * 600), Rendered([5, 6], [True, False])], lambda done: None)
    assert counts.tolist() == [599, 0]
    wanted = 0.0
    for first in (0, 255, 510):
        window = torch.tensor([ids[first : first + 256]])
        wanted += model(input_ids=window, labels=window).loss.item() * (window.shape[1] - 1)
    assert nats[0] == pytest.approx(wanted, rel=1e-4)
    assert nats[1] == 0


def test_bits_per_byte_follow_from_the_bytes(made, scored):
    """The same figure from first principles: every document alone, its first token given."""
    model = AutoModelForCausalLM.from_pretrained(made.model.path).eval()
    chat = ChatFormat.load(made.model.path)
    nats, size = 0.0, 0
    for i in range(8):
        ids = torch.tensor([chat.encode(answer(i) * 9)])
        nats += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        size += len((answer(i) * 9).encode()) - len(chat.decode([ids[0, 0].item()]).encode())
    assert scored[2].metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)


def test_few_shot_examples_come_from_training_rows_of_the_same_task(made):
    examples = Examples(CONFIG, made)
    before = examples.before({"task": "colour"})
    assert before.count("Question:") == 2
    assert "as all who count by six know" in before or "It is" in before
    assert examples.before({"task": "unheard of"}).count("Question:") == 2
    chat = ChatFormat.load(made.model.path)
    few = [q for q in questions_of(CONFIG, made, chat) if q.way == "few_shot"]
    assert all(chat.decode(q.ids).endswith("\nAnswer:") for q in few)
    assert not any(set(q.ids) & chat.control_ids for q in few)
