"""Licences of base and data: carried from the recipe and the cards of its sources, some of them forbidden."""

from pathlib import Path

import pytest
import yaml

from containers.contract import StageError
from flows.recipe import Recipe, load_recipe
from tests.unit.test_cli import slipway

CARD = "---\nlicense: {licence}\nlanguage: en\n---\n# Books\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, licence in (("books", "cc-by-nc-4.0"), ("base", "Apache-2.0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(CARD.format(licence=licence))
    (tmp_path / "books/one.txt").write_text("Once.")
    (tmp_path / "talk.jsonl").write_text("{}")
    return tmp_path


def recipe(folder: Path, **changes: object) -> str:
    values = {
        "description": "a test",
        "flow": "adapt_model",
        "checkpoint": {"path": "base"},
        "data": {
            "corpus": {"sources": [{"path": "books"}, {"builtin": "stories"}, {"hub": "owner/name"}]},
            "instructions": {"sources": [{"path": "talk.jsonl", "licence": "MIT"}]},
        },
        "sft": {"method": "lora"},
    }
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**values, **changes}))
    return str(file)


def test_each_part_is_named_with_its_licence_and_no_path_of_this_machine(folder: Path) -> None:
    found = load_recipe(recipe(folder))
    assert found.package.licences == {
        "checkpoint: base": "Apache-2.0",
        "data.corpus: books": "cc-by-nc-4.0",
        "data.corpus: builtin stories": "generated",
        "data.corpus: owner/name": "unknown",
        "data.instructions: talk.jsonl": "MIT",
    }
    assert Recipe.model_validate_json(found.model_dump_json()) == found


def test_what_the_recipe_says_stands_above_the_card(folder: Path) -> None:
    found = load_recipe(recipe(folder), ["data.corpus.sources.0.licence=CC0-1.0", "checkpoint.licence=mit"])
    assert found.package.licences["data.corpus: books"] == "CC0-1.0"
    assert found.package.licences["checkpoint: base"] == "mit"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("*-NC-*", "data.corpus: books comes under cc-by-nc-4.0, which forbid_licences '*-NC-*' forbids"),
        ("unknown", "data.corpus: owner/name comes under unknown"),
        ("apache-*", "checkpoint: base comes under Apache-2.0"),
    ],
)
def test_a_forbidden_licence_stops_a_run_before_anything_is_trained(folder: Path, pattern: str, said: str) -> None:
    file = recipe(folder, forbid_licences=[pattern])
    with pytest.raises(StageError) as refused:
        load_recipe(file)
    assert said in str(refused.value)
    done = slipway(folder / "home", "run", file)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "home/store").exists()


def test_a_licence_that_is_not_forbidden_is_allowed(folder: Path) -> None:
    assert load_recipe(recipe(folder, forbid_licences=["gpl-*", "*-nd-*"])).forbid_licences == ("gpl-*", "*-nd-*")


def test_a_broken_card_is_said_to_be_broken(folder: Path) -> None:
    (folder / "books/README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(StageError, match=r"README.md: the front matter is not YAML"):
        load_recipe(recipe(folder))
