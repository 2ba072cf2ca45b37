"""The data stage: every format people have, every fault they bring, and what cleaning promises."""

import bz2
import gzip
import io
import json
import lzma
import re
import resource
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import strategies as st

from containers.contract import Dataset, Files, Role, StageError, digest_of
from containers.data.contract import DataConfig, DataInputs, SourceConfig
from containers.data.reading import Read, Reader
from containers.data.words import words_of
from containers.entrypoint import main
from containers.formats import rows_of, schema_of
from tests.by_hand import ROOT, logged, placed, run_by_hand, try_by_hand

SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real sample data is not beside the repository")
STORY = "The lighthouse keeper climbed {n} steps every evening, and each time she counted the boats that came home. "


class Made(NamedTuple):
    """What one run of the stage left."""

    code: int
    folder: Path

    @property
    def errors(self) -> str:
        return "\n".join(logged(self.folder, "error"))

    @property
    def dataset(self) -> Dataset:
        assert self.code == 0, self.errors
        result = json.loads((self.folder / "result.json").read_text())["outputs"]["dataset"]
        return Dataset.model_validate({**result, "path": self.folder / result["path"]})

    @property
    def card(self) -> dict[str, Any]:
        return json.loads((self.folder / "outputs/card/card.json").read_text())

    @property
    def rejects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "outputs/card/rejects.jsonl").read_text().splitlines()]

    def rows(self, split: str = "") -> list[dict[str, Any]]:
        splits = [split] if split else ["train", "validation", "test"]
        return [row for name in splits for row in rows_of(self.dataset, name).to_pylist()]


class Given:
    """A source of files, as a recipe names it."""

    def __init__(self, files: dict[str, bytes | str] | Path, **source: Any) -> None:
        self.files = files
        self.source = source

    def put(self, folder: Path) -> Files:
        folder.mkdir(parents=True)
        if isinstance(self.files, Path):
            (folder / self.files.name).symlink_to(self.files)
            return Files(path=folder)
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return Files(path=folder)


def asked(folder: Path, role: Role, *given: Given, held_out: tuple[Dataset, ...] = (), **config: Any) -> Any:
    sources = [SourceConfig(**({} if {"builtin", "hub"} & set(g.source) else {"path": "x"}) | g.source) for g in given]
    files = {str(i): g.put(folder / f"given{i}") for i, g in enumerate(given) if g.files}
    return DataConfig(sources=tuple(sources), **config), DataInputs(role=role, files=files, held_out=held_out)


def make(folder: Path, role: Role, *given: Given, **config: Any) -> Made:
    """Run the stage in this process, through the entry point that containers use."""
    settings, inputs = asked(folder, role, *given, **config)
    stage = folder / "stage"
    stage.mkdir(parents=True, exist_ok=True)
    request = {"stage": "data", "label": "", "fingerprint": "0" * 64, "code": ""}
    request |= {"config": settings.model_dump(mode="json"), "inputs": placed(inputs, stage)}
    (stage / "request.json").write_text(json.dumps(request))
    return Made(main(stage), stage)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


ASK, REPLY = "What floats?", "A boat floats."
PAIR = {"prompt": ASK, "completion": REPLY}
LESSONS: dict[str, tuple[str, bytes | str, str, str]] = {
    "alpaca": ("a.json", json.dumps([{"instruction": "What", "input": "floats?", "output": REPLY}]), "json", "alpaca"),
    "alpaca without input": ("a.jsonl", lines({"instruction": ASK, "input": "", "output": REPLY}), "jsonl", "alpaca"),
    "dolly": ("d.jsonl", lines({"instruction": ASK, "context": "", "response": REPLY}), "jsonl", "alpaca"),
    "pairs": ("p.jsonl", lines(PAIR), "jsonl", "prompt_completion"),
    "a thumb up": ("f.jsonl", lines(PAIR | {"prompt": turns(ASK), "label": True}), "jsonl", "unpaired"),
    "a class": ("p.jsonl", lines(PAIR | {"label": "physics"}), "jsonl", "prompt_completion"),
    "openai": ("m.jsonl", lines({"messages": turns(ASK, REPLY)}), "jsonl", "messages"),
    "parts": (
        "c.jsonl",
        lines({"messages": [{"role": "user", "content": [{"type": "text", "text": ASK}]}, turns("", REPLY)[1]]}),
        "jsonl",
        "messages",
    ),
    "sharegpt": (
        "s.json",
        json.dumps([{"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": REPLY}]}]),
        "json",
        "sharegpt",
    ),
    "csv": ("t.csv", f'prompt,completion\n"{ASK}","{REPLY}"\n', "csv", "prompt_completion"),
    "semicolons": ("t.csv", f"prompt;completion\n{ASK};{REPLY}\n", "csv", "prompt_completion"),
    "tsv": ("t.tsv", f"prompt\tcompletion\n{ASK}\t{REPLY}\n", "tsv", "prompt_completion"),
    "parquet": ("t.parquet", parquet([PAIR]), "parquet", "prompt_completion"),
    "gz": ("p.jsonl.gz", gzip.compress(lines(PAIR).encode()), "jsonl", "prompt_completion"),
    "zst": ("p.jsonl.zst", zstandard.compress(lines(PAIR).encode()), "jsonl", "prompt_completion"),
    "bz2": ("p.jsonl.bz2", bz2.compress(lines(PAIR).encode()), "jsonl", "prompt_completion"),
    "xz": ("p.jsonl.xz", lzma.compress(lines(PAIR).encode()), "jsonl", "prompt_completion"),
    "no suffix": ("lessons", lines(PAIR), "jsonl", "prompt_completion"),
    "byte order mark, CRLF": ("p.jsonl", "\ufeff" + lines(PAIR).replace("\n", "\r\n"), "jsonl", "prompt_completion"),
}


@pytest.mark.parametrize("name", LESSONS)
def test_lessons_are_recognised_in_every_format(tmp_path: Path, name: str) -> None:
    file, content, kind, shape = LESSONS[name]
    made = make(tmp_path, "instructions", Given({file: content}))
    (row,) = made.rows()
    said = " ".join(turn["content"] for turn in row["messages"]).split()
    assert said == f"{ASK} {REPLY}".split()
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    seen = made.card["files"][0]
    assert (seen["kind"], seen["shape"], seen["rows"], seen["rejects"]) == (kind, shape, 1, 0)
    assert f"{file}: recognised as {kind}, {shape}" in logged(made.folder, "info")


JUDGEMENTS = {
    "transcripts": lines(
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Help\n\nAssistant: Gladly.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Help\n\nAssistant: No.",
        }
    ),
    "messages with a prompt": lines(
        {"prompt": turns("Hi", "Yes?", "Help"), "chosen": turns("", "Gladly.")[1:], "rejected": turns("", "No.")[1:]}
    ),
    "messages that begin alike": lines(
        {"chosen": turns("Hi", "Yes?", "Help", "Gladly."), "rejected": turns("Hi", "Yes?", "Help", "No.")}
    ),
    "openai": lines(
        {
            "input": {"messages": turns("Hi", "Yes?", "Help")},
            "preferred_output": turns("", "Gladly.")[1:],
            "non_preferred_output": turns("", "No.")[1:],
        }
    ),
}


@pytest.mark.parametrize("name", JUDGEMENTS)
def test_judgements_of_several_turns_keep_their_common_beginning_as_prompt(tmp_path: Path, name: str) -> None:
    (row,) = make(tmp_path, "preferences", Given({"j.jsonl": JUDGEMENTS[name]})).rows()
    assert row["prompt"] == turns("Hi", "Yes?", "Help")
    assert row["chosen"] == [{"role": "assistant", "content": "Gladly."}]
    assert row["rejected"] == [{"role": "assistant", "content": "No."}]


GSM = {"question": "How many?", "answer": "There are 54*20=<<54*20=1080>>1080 boats.\n#### 1,080"}
SVAMP = {"Body": "He has 5 boats", "Question": "How many if 3 sink?", "Equation": "( 5.0 - 3.0 )", "Answer": 2.0}


THUMBS = [
    {"prompt": ASK, "completion": REPLY, "label": True},
    {"prompt": turns(ASK), "completion": REPLY, "label": True},
    {"prompt": ASK, "completion": REPLY, "label": False},
    {"prompt": ASK, "completion": turns("", "A stone.")[1:], "label": "down"},
    {"prompt": ASK, "completion": "A brick.", "label": False},
    {"prompt": ASK, "completion": "Wood, perhaps.", "label": True},
    {"prompt": ASK, "completion": "Wood, perhaps.", "label": False},
    {"prompt": "What sinks?", "completion": "A stone sinks.", "label": True},
    {"prompt": "What sinks?", "completion": "A stone sinks.", "label": "perhaps"},
    {"prompt": "What sinks?", "completion": 7, "label": True},
]


def test_liked_answers_are_set_against_disliked_ones_to_the_same_prompt(tmp_path: Path) -> None:
    made = make(tmp_path, "preferences", Given({"feedback.jsonl": lines(*THUMBS)}), max_rejected_share=0.7)
    rows = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in made.rows()]
    assert sorted(rows) == [(REPLY, "A brick."), (REPLY, "A stone.")], (
        "two thumbs of three are up, one of two is neither"
    )
    assert [(reject["line"], reject["reason"]) for reject in made.rejects] == [
        (9, "`label` is neither true nor false"),
        (10, "a message holds no text"),
    ]
    assert [(seen["shape"], seen["rows"], seen["rejects"]) for seen in made.card["files"]] == [("unpaired", 8, 2)]


def test_a_disliked_answer_is_no_lesson(tmp_path: Path) -> None:
    made = make(tmp_path, "instructions", Given({"feedback.jsonl": lines(*THUMBS[3:6])}))
    assert [row["messages"][-1]["content"] for row in made.rows()] == ["Wood, perhaps."]
    assert not made.rejects, "it is left out, and counted, as nothing is wrong with it"


def test_worked_problems_lose_marks_and_keep_one_spelling_of_numbers(tmp_path: Path) -> None:
    given = Given({"gsm.jsonl": lines(GSM), "svamp.json": json.dumps([SVAMP])})
    boats, sunk = make(tmp_path, "problems", given, test_share=0, validation_share=0).rows()
    assert boats["answer"] == "1080"
    assert boats["messages"][1]["content"] == "There are 54*20=1080 boats.\nThe answer is 1080."
    assert sunk["answer"] == "2"
    assert sunk["messages"][0]["content"] == "He has 5 boats, how many if 3 sink?"
    assert sunk["messages"][1]["content"] == "5 - 3 = 2\nThe answer is 2."
    assert (boats["task"], sunk["source"]) == ("gsm", "svamp.json")


def test_calculator_marks_can_be_kept(tmp_path: Path) -> None:
    (row,) = make(tmp_path, "problems", Given({"gsm.jsonl": lines(GSM)}), calculator_marks="keep").rows()
    assert "<<54*20=1080>>1080" in row["messages"][1]["content"]


WIKI = (
    " \n = Boat = \n \n A boat <unk> , weighing 10 @,@ 000 tons ( or 3 @.@ 5 ) , is well @-@ known to all . \n"
    " \n = = Hull = = \n \n It does n't sink .\n = Ship = \n \n A ship is the larger of the two , and it has masts . \n"
)


def test_wikitext_becomes_articles_of_prose(tmp_path: Path) -> None:
    made = make(tmp_path, "corpus", Given({"wiki.txt": WIKI}), test_share=0, validation_share=0)
    boat, ship = [row["text"] for row in made.rows()]
    assert boat == (
        "Boat\n\nA boat <unk>, weighing 10,000 tons (or 3.5), is well-known to all.\n\nHull\n\nIt doesn't sink."
    )
    assert ship.startswith("Ship\n\nA ship is the larger of the two, and")
    kept = make(tmp_path / "kept", "corpus", Given({"wiki.txt": WIKI}), wikitext="keep")
    assert any("well @-@ known" in row["text"] for row in kept.rows())


PAGE = f"<!doctype html><html><body><nav><a href=/>Home</a></nav><article><p>{STORY * 5}</p></article></body></html>"


@pytest.mark.parametrize(
    ("file", "content", "source", "expected"),
    [
        ("a.txt", f"{STORY}\n{STORY}2", {}, ("text", 1)),
        ("a.md", f"# Boats\n\n{STORY}", {}, ("text", 1)),
        ("a.py", "def boat() -> str:\n    return 'floats and never ever sinks at all'\n", {}, ("code", 1)),
        ("a.html", PAGE, {}, ("html", 1)),
        ("a.txt", f"{STORY}1\n{STORY}2\n", {"format": "lines"}, ("lines", 2)),
        ("a.txt", f"{STORY}1\n<|endoftext|>\n{STORY}2\n<|endoftext|>\n", {}, ("separated", 2)),
        ("a.jsonl", lines({"content": STORY}), {}, ("jsonl", 1)),
        ("a.jsonl", lines({"body": STORY}), {"columns": {"text": "body"}}, ("jsonl", 1)),
        ("a.jsonl", lines({"prompt": "What is it?", "completion": STORY}), {}, ("jsonl", 1)),
    ],
)
def test_documents_of_every_kind(
    tmp_path: Path, file: str, content: str, source: dict[str, Any], expected: tuple[str, int]
) -> None:
    made = make(tmp_path, "corpus", Given({file: content}, **source), test_share=0, validation_share=0)
    assert (made.card["files"][0]["kind"], len(made.rows())) == expected
    assert all("<|endoftext|>" not in row["text"] and "Home" not in row["text"] for row in made.rows())


def test_lessons_in_a_corpus_are_written_out_as_dialogue(tmp_path: Path) -> None:
    (row,) = make(tmp_path, "corpus", Given({"p.jsonl": lines(PAIR)}), test_share=0, validation_share=0).rows()
    assert row["text"] == f"User: {ASK}\n\nAssistant: {REPLY}"


def test_a_control_token_is_stripped_from_the_end_and_is_text_elsewhere(tmp_path: Path) -> None:
    row = {"prompt": "What does <|endoftext|> mean?", "completion": "The <|im_end|> of it.<|endoftext|>"}
    made = make(tmp_path, "instructions", Given({"p.jsonl": lines(row)}))
    assert [turn["content"] for turn in made.rows()[0]["messages"]] == [row["prompt"], "The <|im_end|> of it."]
    assert made.card["changed"]["control_token_endings_removed"] == 1


def test_columns_and_speakers_are_mapped(tmp_path: Path) -> None:
    talk = [{"from": "client", "value": ASK}, {"from": "agent", "value": REPLY}]
    given = Given(
        {"t.jsonl": lines({"talk": talk})},
        columns={"conversations": "talk"},
        roles={"agent": "assistant", "client": "user"},
    )
    assert make(tmp_path, "instructions", given).rows()[0]["messages"] == turns(ASK, REPLY)


def test_one_message_rows_are_grouped_into_conversations(tmp_path: Path) -> None:
    table = "ticket,who,said\n7,client,Hi\n8,client,Help\n7,agent,Hello\n8,agent,How?\n7,client,Bye\n7,agent,Goodbye\n"
    given = Given(
        {"t.csv": table},
        columns={"role": "who", "content": "said"},
        roles={"agent": "assistant", "client": "user"},
        conversation="ticket",
    )
    made = make(tmp_path, "instructions", given)
    found = sorted((row["messages"] for row in made.rows()), key=len)
    assert found == [turns("Help", "How?"), turns("Hi", "Hello", "Bye", "Goodbye")]


def test_bad_rows_are_rejected_one_by_one_with_place_and_reason_and_without_their_text(tmp_path: Path) -> None:
    good = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(40)]
    bad = '{"prompt": "secret", "completion": ""}\n{"prompt": "secret"}\nsecret\n[1]\n'
    bad += '{"prompt": "\\ud800", "completion": "x"}\n'
    made = make(tmp_path, "instructions", Given({"p.jsonl": lines(*good) + bad}), max_rejected_share=0.2)
    assert len(made.rows()) == 40
    assert [(r["file"], r["line"]) for r in made.rejects] == [("p.jsonl", 41 + i) for i in range(5)]
    reasons = [r["reason"] for r in made.rejects]
    assert reasons[0] == "empty assistant message"
    assert reasons[1] == "no column 'completion'"
    assert reasons[2].startswith("not JSON")
    assert reasons[3].startswith("a JSON list")
    assert "surrogate" in reasons[4]
    assert "secret" not in json.dumps(made.rejects)
    assert made.card["steps"]["rejected"] == 5


DOCUMENTS = [{"text": STORY.format(n=i) + f"Number {i} was blue."} for i in range(60)]


def test_a_truncated_last_line_is_one_reject(tmp_path: Path) -> None:
    made = make(tmp_path, "corpus", Given({"d.jsonl": lines(*DOCUMENTS)[:-20]}), near_duplicate_similarity=1)
    assert len(made.rows()) == 59
    assert made.rejects == [{"file": "d.jsonl", "line": 60, "reason": "not JSON: the line is cut off"}]


def test_a_truncated_json_list_keeps_what_is_whole(tmp_path: Path) -> None:
    text = json.dumps(DOCUMENTS, indent=1)
    made = make(tmp_path, "corpus", Given({"d.json": text[:-30]}), near_duplicate_similarity=1)
    assert len(made.rows()) == 59
    assert made.rejects[0]["line"] == text[: text.rindex("{")].count("\n") + 1
    assert "cut off" in made.rejects[0]["reason"]


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_a_broken_packed_file_keeps_the_rows_before_the_break(tmp_path: Path, packing: str) -> None:
    import random

    noise = random.Random(0)
    letters = str.maketrans("0123456789", "ghijklmnop")
    rows = [{"text": f"{noise.randbytes(600).hex(' ', 3)}".translate(letters)} for _ in range(1200)]
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}[packing]
    whole = pack(lines(*rows).encode())
    given = Given({f"d.jsonl.{packing}": whole[: len(whole) * 3 // 4]})
    made = make(tmp_path, "corpus", given)
    assert 400 < len(made.rows()) < 1200
    assert len(made.rejects) == 1
    assert made.rejects[0]["line"] == len(made.rows()) + 1


FAULTS: dict[str, tuple[Role, dict[str, bytes | str], str]] = {
    "not gz at all": ("corpus", {"d.txt.gz": "plain words"}, "d.txt.gz:1: named .gz, but it is not compressed"),
    "gz header only": ("corpus", {"d.txt.gz": gzip.compress(b"x" * 100)[:12]}, "d.txt.gz:1:"),
    "binary": ("corpus", {"d.txt": bytes(range(256)) * 40}, "d.txt:1: binary data"),
    "binary without a name": ("corpus", {"model": b"\x7fELF\0\0\1" * 99}, "model:1: binary data"),
    "broken parquet": ("corpus", {"d.parquet": parquet(DOCUMENTS)[:-40]}, "d.parquet:1: not a readable parquet file"),
    "parquet that is none": ("corpus", {"d.parquet": "text"}, "d.parquet:1: not a readable parquet file"),
    "empty file": ("corpus", {"d.txt": ""}, "d.txt:1: the file is empty"),
    "blank file": ("corpus", {"d.txt": "\n \n"}, "d.txt:1: the file is empty"),
    "empty list": ("instructions", {"d.json": "[]"}, "d.json:1: "),
    "header only": ("instructions", {"d.csv": "prompt,completion\n"}, "d.csv:1: no rows"),
    "wrong schema": ("problems", {"d.jsonl": lines(PAIR)}, "d.jsonl:1: wrong schema for problems: the columns are"),
    "missing column": ("instructions", {"d.jsonl": lines({"prompt": "x"})}, "d.jsonl:1: wrong schema for instructions"),
    "preferences in a corpus": ("corpus", {"d.jsonl": JUDGEMENTS["openai"]}, "looks like openai_preference"),
    "no JSON in it": ("instructions", {"d.jsonl": "hello\n"}, "d.jsonl:1: not JSON"),
    "all rejected": ("instructions", {"d.jsonl": lines({"prompt": "x", "completion": ""})}, "all 1 rows of data.inst"),
    "too many rejected": (
        "instructions",
        {"d.jsonl": lines(PAIR, {"prompt": "x", "completion": ""})},
        "1 of 2 rows of data.instructions were rejected (50.0%, the recipe allows 5.0%): empty assistant message (1)",
    ),
    "all filtered": ("corpus", {"d.txt": "1 2 3 4 5 6 7 8"}, "every row of data.corpus was dropped"),
    "not UTF-8": ("corpus", {"d.txt": "Un \xe9t\xe9 \xe0 la mer\n".encode("latin-1") * 9}, "not UTF-8 at byte"),
    "one header twice": ("corpus", {"d.csv": "text,text\na,b\n"}, "d.csv:1: the header names a column twice"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_used_is_refused_with_place_and_advice(tmp_path: Path, name: str) -> None:
    role, files, words = FAULTS[name]
    made = make(tmp_path, role, Given(files))
    assert made.code == 2
    assert words in made.errors
    assert not (made.folder / "result.json").exists()


def test_refusals_reach_the_exit_code_of_a_process(tmp_path: Path) -> None:
    settings, inputs = asked(tmp_path, "corpus", Given({"d.txt": bytes(range(256)) * 40}))
    code, errors = try_by_hand(tmp_path / "stage", "data", settings, inputs)
    assert code == 2
    assert "d.txt:1: binary data" in errors


def test_a_full_disk_is_said_as_one(tmp_path: Path) -> None:
    import random

    noise = random.Random(1)
    text = lines(*({"text": " ".join(noise.choices("abcdefghijklmnop", k=400))} for _ in range(4000)))
    settings, inputs = asked(tmp_path, "corpus", Given({"d.jsonl": text}), quality={"min_mean_word_length": 0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        code, errors = try_by_hand(tmp_path / "stage", "data", settings, inputs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2, errors
    assert "no disk space left" in errors
    assert "SLIPWAY_HOME" in errors


def test_no_sources_is_an_error(tmp_path: Path) -> None:
    made = make(tmp_path, "corpus")
    assert made.code == 2
    assert "data.corpus names no sources" in made.errors


def test_equal_bytes_come_of_two_runs_in_two_folders(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        given = (
            Given({"p.jsonl": lines(*LONG), "q.txt": STORY * 3}, weight=1.5),
            Given({}, builtin="stories", max_rows=50),
        )
        settings, inputs = asked(tmp_path / name, "corpus", *given)
        made.append(run_by_hand(tmp_path / name / "stage", "data", settings, inputs)[0].dataset)
    assert made[0].digest == made[1].digest
    assert made[0].rows == made[1].rows
    cards = [(tmp_path / name / "stage/outputs/card").resolve() for name in ("one", "two")]
    assert digest_of(cards[0]) == digest_of(cards[1])
    assert str(tmp_path).encode() not in b"".join(f.read_bytes() for f in cards[0].iterdir())


def long_text(number: int, changed: int = 0) -> str:
    """Return 200 words that share no 5-word run with another number's, the first `changed` of them different."""
    words = [f"w{number}x{i}" for i in range(200)]
    return " ".join([f"new{number}y{i}" for i in range(changed)] + words[changed:]) + "."


LONG = [{"text": long_text(i)} for i in range(100)]


def test_exact_and_near_duplicates_are_dropped_and_others_are_not(tmp_path: Path) -> None:
    rows = [
        *LONG,
        LONG[3],
        {"text": long_text(5, 4).upper()},
        {"text": long_text(6, 100)},
        {"text": f"{long_text(7)}\n\n"},
    ]
    letters = {"quality": {"min_letter_share": 0}}
    card = make(tmp_path / "a", "corpus", Given({"d.jsonl": lines(*rows)}), **letters).card
    assert card["steps"]["exact_duplicates"] == 2
    assert card["steps"]["near_duplicates"] == 1
    assert card["steps"]["kept"] == 101
    kept = make(tmp_path / "b", "corpus", Given({"d.jsonl": lines(*rows)}), near_duplicate_similarity=1, **letters).card
    assert kept["steps"]["near_duplicates"] == 0


def test_estimated_similarity_follows_true_similarity(tmp_path: Path) -> None:
    from containers.data.duplicates import Signatures, resemblance

    changes = [0, 5, 10, 20, 40, 80, 120]
    texts = [long_text(1, changed) for changed in changes]
    with Signatures(tmp_path, lambda *_: None) as signatures:
        signatures.add_near(np.arange(len(texts)), words_of(texts))
    true = [(196 - min(c + 4, 196) + (4 if c == 0 else 0)) / (196 + (c + 0 if c else 0)) for c in changes]
    with signatures.paths["bytes"].open("rb") as stream:
        places = np.arange(len(texts))
        found = resemblance(stream, np.zeros_like(places), places)
    assert np.abs(found - np.array(true)).max() < 0.15
    assert found[0] == 1


QUESTION = "How many red boats does the old keeper of the northern lighthouse count before the sun goes down on Friday?"


def problems(folder: Path) -> Dataset:
    """Return problems whose test split asks QUESTION."""
    rows = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(20)]
    made = make(
        folder, "problems", Given({"p.jsonl": lines({"question": QUESTION, "answer": "7"}, *rows)}), test_share=0.49
    )
    for seed in range(20):
        if any(QUESTION in row["messages"][0]["content"] for row in made.rows("test")):
            return made.dataset
        given = Given({"p.jsonl": lines({"question": QUESTION, "answer": "7"}, *rows)})
        made = make(folder / str(seed), "problems", given, test_share=0.49, seed=seed)
    raise AssertionError("no seed puts the question into the test split")


def test_what_the_test_asks_is_kept_out_of_training_however_it_is_wrapped(tmp_path: Path) -> None:
    held_out = (problems(tmp_path / "problems"),)
    wrapped = QUESTION.upper().replace(" ", "\n").replace("BOATS", "BOATS --")
    rows = [
        {"text": f"{long_text(200)} {wrapped} And so on."},
        {"text": " ".join(QUESTION.split()[:12]) + long_text(201)},
    ]
    shares = {"test_share": 0, "validation_share": 0, "quality": {"min_letter_share": 0}}
    made = make(tmp_path / "a", "corpus", Given({"d.jsonl": lines(*rows, *LONG)}), held_out=held_out, **shares)
    assert made.card["steps"]["contaminated"] == 1
    assert not any("FRIDAY" in row["text"] for row in made.rows())
    off = make(
        tmp_path / "b", "corpus", Given({"d.jsonl": lines(*rows)}), held_out=held_out, decontaminate_words=0, **shares
    )
    assert off.card["steps"]["contaminated"] == 0


def test_short_test_questions_are_kept_out_of_lessons_when_they_are_equal(tmp_path: Path) -> None:
    held_out = problems(tmp_path / "problems")
    asks = [row["messages"][0]["content"] for row in rows_of(held_out, "test").to_pylist()]
    short = next(ask for ask in asks if ask != QUESTION)
    lessons = [
        {"prompt": short.lower().replace("?", " ?"), "completion": "x"},
        {"prompt": f"{short} Why?", "completion": "y"},
    ]
    made = make(tmp_path / "a", "instructions", Given({"l.jsonl": lines(*lessons)}), held_out=(held_out,), test_share=0)
    assert made.card["steps"]["contaminated"] == 1
    assert [row["messages"][1]["content"] for row in made.rows()] == ["y"]


def test_rows_with_the_same_question_stay_in_one_split_whatever_their_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question number {i % 60}?", "completion": f"Answer {i}."} for i in range(240)]
    given = [Given({"p.jsonl": lines(*rows)}), Given({"p.jsonl": lines(*reversed(rows))})]
    shares = {"test_share": 0.2, "validation_share": 0.2}
    one, two = (make(tmp_path / str(i), "instructions", g, **shares) for i, g in enumerate(given))

    def asked_in(made: Made) -> list[set[str]]:
        return [{r["messages"][0]["content"] for r in made.rows(s)} for s in ("train", "validation", "test")]

    assert asked_in(one) == asked_in(two)
    train, validation, test = asked_in(one)
    assert not train & validation and not train & test and not validation & test
    assert len(train) + len(validation) + len(test) == 60
    assert min(len(validation), len(test)) > 3


def test_a_single_document_is_divided_and_a_huge_one_is_not_held_out(tmp_path: Path) -> None:
    text = "\n".join(f"Line {i} of the story tells of boats." for i in range(1000))
    made = make(tmp_path / "a", "corpus", Given({"d.txt": text}), test_share=0.1, validation_share=0.05)
    parts = [made.rows(split)[0]["text"] for split in ("train", "validation", "test")]
    assert "\n".join(parts) == text
    assert [round(len(part) / len(text), 2) for part in parts] == [0.85, 0.05, 0.1]
    for seed in range(3):
        rows = [{"text": text}, *LONG]
        given = Given({"d.jsonl": lines(*rows)})
        share = {"test_share": 0.1, "validation_share": 0.1, "quality": {"min_letter_share": 0}}
        made = make(tmp_path / str(seed), "corpus", given, seed=seed, **share)
        assert max(len(row["text"]) for row in made.rows("train")) == len(text)


@pytest.mark.parametrize("count", [3, 10, 40])
def test_small_sets_of_lessons_have_every_split(tmp_path: Path, count: int) -> None:
    rows = [{"prompt": f"Question number {i}?", "completion": f"Answer {i}."} for i in range(count)]
    for seed in range(3):
        made = make(tmp_path / str(seed), "instructions", Given({"p.jsonl": lines(*rows)}), seed=seed)
        assert min(made.dataset.rows.values()) >= 1
        assert made.dataset.rows["train"] >= count // 3


def test_weights_repeat_or_thin_out_training_rows_alone(tmp_path: Path) -> None:
    def texts(kind: str) -> str:
        return lines(*({"text": f"{kind} {long_text(i)}"} for i in range(200)))

    given = [Given({f"{kind}.jsonl": texts(kind)}, weight=w) for kind, w in (("two", 2), ("half", 0.5), ("one", 1))]
    made = make(
        tmp_path, "corpus", *given, quality={"min_letter_share": 0}, near_duplicate_similarity=1, test_share=0.2
    )
    train = [row["source"] for row in made.rows("train")]
    test = [row["source"] for row in made.rows("test")]
    assert train.count("two.jsonl") == 2 * len({r["text"] for r in made.rows("train") if r["source"] == "two.jsonl"})
    assert 50 < train.count("half.jsonl") < 110 < train.count("one.jsonl") < 190
    assert len(test) == len({row["text"] for row in made.rows("test")})


PRIVATE = (
    "Write to joe.bloggs@example.com or call +1 (212) 555-0147 from 192.168.10.254, card 4111 1111 1111 1111 today. "
    "The boats come home in the evening, when the keeper of the lighthouse has climbed her stairs."
)


@pytest.mark.parametrize("mode", ["flag", "scrub", "off"])
def test_personal_data_is_flagged_scrubbed_or_left(tmp_path: Path, mode: str) -> None:
    made = make(
        tmp_path,
        "corpus",
        Given({"d.jsonl": lines({"text": PRIVATE}, {"text": STORY})}),
        pii=mode,
        test_share=0,
        validation_share=0,
    )
    found = {"EMAIL": 1, "PHONE": 1, "IP_ADDRESS": 1, "CREDIT_CARD": 1}
    assert made.card["pii"] == {"mode": mode, "rows": int(mode != "off"), "found": {} if mode == "off" else found}
    texts = {row["text"] for row in made.rows()}
    scrubbed = "Write to [EMAIL] or call [PHONE] from [IP_ADDRESS], card [CREDIT_CARD] today."
    if mode == "scrub":
        assert any(text.startswith(scrubbed) for text in texts)
    else:
        assert PRIVATE in texts


def test_numbers_of_problems_are_not_taken_for_personal_data(tmp_path: Path) -> None:
    from containers.data.privacy import spans_in

    assert (
        spans_in("It sold 1,080,000 boats in 2024, 12 345 in May; 3.14159 x 2 = 6.28318, on 01/02/2024, @home.") == []
    )


def test_each_quality_filter_drops_what_it_is_for(tmp_path: Path) -> None:
    rows = [
        {"text": "Three words only."},
        {"text": "a b c d e f g h i j k"},
        {"text": "supercalifragilistic " * 9},
        {"text": "word | " * 6 + "- = + * " * 40},
        {"text": "\n".join(["Click here to read the menu", *["Click here"] * 30])},
        {"text": STORY},
    ]
    made = make(tmp_path, "corpus", Given({"d.jsonl": lines(*rows)}), test_share=0, validation_share=0)
    assert sorted(made.card["quality"]) == [
        "repeated lines", "too few letters", "too few words", "words too long", "words too short",
    ]  # fmt: skip
    assert [row["text"] for row in made.rows()] == [STORY.strip()]


def test_unicode_is_normalised(tmp_path: Path) -> None:
    (row,) = make(
        tmp_path, "instructions", Given({"p.jsonl": lines({"prompt": "Cafe\u0301?", "completion": "Un\r\ndeux."})})
    ).rows()
    assert [turn["content"] for turn in row["messages"]] == ["Caf\u00e9?", "Un\ndeux."]


def test_a_hub_dataset_is_streamed_through_the_real_loader(tmp_path: Path) -> None:
    rows = lines(*({"prompt": f"Ask {i}?", "completion": f"Reply {i}."} for i in range(30)))
    made = make(tmp_path, "instructions", Given({"train.jsonl": rows}, hub="somebody/talk", max_rows=20))
    assert sum(made.dataset.rows.values()) == 20
    assert {row["source"] for row in made.rows()} == {"hub:talk"}
    missing = make(tmp_path / "b", "corpus", Given({}, hub=str(tmp_path / "nowhere"), revision="0" * 40))
    assert missing.code == 2
    assert "cannot be read" in missing.errors


def test_worlds_keep_their_own_splits_and_pass_for_what_they_are(tmp_path: Path) -> None:
    from containers.data.worlds import generate

    expected: dict[str, int] = {}
    seen = set()
    for row in generate("shop", "problems", 0):
        key = json.dumps(row["messages"])
        expected[row["split"]] = expected.get(row["split"], 0) + (key not in seen)
        seen.add(key)
    made = make(tmp_path, "problems", Given({}, builtin="shop"))
    assert made.dataset.rows == {split: expected.get(split, 0) for split in ("train", "validation", "test")}
    assert rows_of(made.dataset, "train").schema.equals(schema_of("problems"))
    unknown = make(tmp_path / "b", "corpus", Given({}, builtin="storys"))
    assert unknown.code == 2
    assert "did you mean 'stories'?" in unknown.errors


def test_the_page_is_whole_and_shows_no_preferences(tmp_path: Path) -> None:
    made = make(tmp_path, "preferences", Given({"j.jsonl": JUDGEMENTS["openai"]}))
    page = (made.folder / "outputs/card/card.html").read_text()
    assert "Gladly" not in page and made.card["samples"] == []
    assert page.rstrip().endswith("</html>") and "http" not in page


@needs_shared
@pytest.mark.parametrize(
    ("role", "files", "expected"),
    [
        (
            "corpus",
            ["corpus/presidents.jsonl.gz", "corpus/shakespeare.txt", "corpus/wikitext2-valid.txt"],
            (185, 0, 0),
        ),
        ("instructions", ["instructions/t0-sample.jsonl.gz", "instructions/seed-tasks-alpaca.json"], (10450, 305, 68)),
        ("preferences", ["preferences/hh-harmless.jsonl.gz"], (2000, 3, 0)),
        ("problems", ["math/gsm8k-train.jsonl", "math/svamp-train.json"], (8173, 0, 0)),
    ],
)
def test_real_files_are_read_as_they_are(
    tmp_path: Path, role: Role, files: list[str], expected: tuple[int, int, int]
) -> None:
    made = make(tmp_path, role, *(Given(SHARED / file) for file in files))
    steps = made.card["steps"]
    assert (steps["read"], steps["rejected"], steps["exact_duplicates"]) == expected
    assert len(made.rejects) == expected[1] and all(r["file"] and r["line"] for r in made.rejects)
    held_out = [made.card["characters"][split] for split in ("validation", "test")]
    assert min(held_out) >= 0.01 * sum(made.card["characters"].values()) >= max(held_out) / 4
    if role == "problems":
        assert all(row["answer"].lstrip("-").replace(".", "", 1).isdigit() for row in made.rows())
        assert not any("<<" in turn["content"] for row in made.rows() for turn in row["messages"])
    if role == "instructions":
        assert not any("<|endoftext|>" in turn["content"] for row in made.rows() for turn in row["messages"])


SYLLABLES = st.sampled_from(["a", "bb", "B", "cc9", "\u00e9t\u00e9", "d_e", "\n", "-", "x"])
NAMES = ("d", "d.txt", "d.jsonl", "d.json", "d.csv", "d.parquet", "d.html", "d.jsonl.gz", "d.txt.zst")
PIECES = st.sampled_from(
    [b'{"text": "', b'"}', b"\n", b"[", b"]", b",", b'"', b"a,b\n", b"\n\nHuman: ", b"\xff\xfe", b"\0", b"\\ud800",
     b'{"prompt": 1, "completion": [', b"<html>", b"= = x", b"PAR1", b"\x1f\x8b", gzip.compress(b'{"text": "boats"}\n')]
)  # fmt: skip


@hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True)
@hypothesis.given(
    st.sampled_from(NAMES),
    st.sampled_from(["corpus", "instructions", "preferences", "problems"]),
    st.lists(st.one_of(PIECES, st.binary(max_size=20), st.text(max_size=20).map(str.encode)), max_size=12),
)
def test_no_bytes_crash_a_reader(name: str, role: Role, pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(b"".join(pieces))
        reader = Reader(role, DataConfig(), Path(folder), lambda _: None)
        try:
            found = list(reader.read(0, SourceConfig(path="x"), Path(folder)))
        except StageError as error:
            assert name in str(error)
            return
    columns = [[read.row.get(f.name) for read in found if isinstance(read, Read)] for f in schema_of(role)]
    pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema_of(role), strict=True)], schema_of(role).names
    )


@hypothesis.settings(max_examples=100, deadline=None, database=None, derandomize=True)
@hypothesis.given(
    st.lists(st.lists(st.sampled_from(["a", "bb", "B", "cc9", "été", "d_e", "\n", "-", "x"]), max_size=9), max_size=5)
)
def test_words_are_equal_exactly_where_their_hashes_are(texts: list[list[str]]) -> None:
    joined = [" ".join(text) for text in texts]
    plain = [re.findall(r"[^\W_]+", text.casefold()) for text in joined]
    words = words_of(joined)
    assert np.diff(words.offsets).tolist() == [len(text) for text in plain]
    flat = [word for text in plain for word in text]
    assert [flat.index(word) for word in flat] == [words.hashes.tolist().index(h) for h in words.hashes.tolist()]


def write_corpus(file: Path, size: int) -> None:
    """Write `size` bytes of JSON lines, each of three random pieces of 32 MB of random words, 2% of them copies."""
    noise = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    vocabulary = np.array(["".join(noise.choice(letters, size=n)) for n in noise.integers(2, 11, 30000)], dtype=object)
    frequency = np.cumsum(1 / np.arange(1, 30001) ** 0.9)
    pool = " ".join(vocabulary[np.searchsorted(frequency, noise.random(4_500_000) * frequency[-1])])
    kept, written = "a first text to copy", 0
    with file.open("w") as stream:
        while written < size:
            starts = noise.integers(0, len(pool) - 3000, 3).tolist()
            chance, length = noise.random(), int(noise.integers(200, 2000))
            text = " ".join(pool[start : start + length] for start in starts)
            text = kept if chance < 0.02 else f"{kept} and one more" if chance < 0.04 else text
            kept = text if chance > 0.96 else kept
            written += stream.write(json.dumps({"text": text}) + "\n")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_gibibytes_are_cleaned_within_one_gibibyte_of_memory(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    write_corpus(file, 2 << 30)
    settings, inputs = asked(tmp_path, "corpus", Given(file))
    outputs, result = run_by_hand(tmp_path / "stage", "data", settings, inputs)
    megabytes = file.stat().st_size / 1e6
    print(f"{megabytes:.0f} MB in {result.seconds:.0f} s, {megabytes / result.seconds:.1f} MB/s", result.metrics)
    assert result.metrics["peak_memory_bytes"] < 1 << 30
    assert sum(outputs.dataset.rows.values()) == result.metrics["kept"] > 500_000
    assert result.metrics["exact_duplicates"] > 5_000
    assert result.metrics["near_duplicates"] > 5_000
