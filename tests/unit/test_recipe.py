"""A recipe is checked at the door: what is wrong, where (file:line), and the nearest right name."""

from pathlib import Path

import pytest

from flows.recipe import RecipeError, load_recipe

RECIPE = """\
description: a test
data:
  corpus:
    sources:
      - {path: texts/*.txt}
  instructions:
    sources:
      - {path: "${CHATS}"}
sft:
  method: lora
  max_length: 256
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(RECIPE)
    return file


def refusal(file: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file), overrides, variables={"CHATS": "chats.jsonl"})
    return str(caught.value)


def test_paths_are_placed_beside_the_recipe_and_variables_filled(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), variables={"CHATS": "chats.jsonl"})
    assert recipe.data.corpus and recipe.data.corpus.sources[0].path == str(recipe_file.parent / "texts/*.txt")
    assert recipe.data.instructions and recipe.data.instructions.sources[0].path == str(
        recipe_file.parent / "chats.jsonl"
    )


def test_a_pin_is_no_path(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), variables={"CHATS": "store:data-abc"})
    assert recipe.data.instructions.sources[0].path == "store:data-abc"


def test_a_missing_variable_is_named(recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match="CHATS"):
        load_recipe(str(recipe_file), variables={})


def test_an_override_reaches_one_number(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), ("sft.learning_rate=1e-4",), variables={"CHATS": "x"})
    assert recipe.sft.learning_rate == pytest.approx(1e-4)


def test_an_unknown_key_is_refused_with_the_nearest_right_name(recipe_file: Path) -> None:
    assert "learning_rate" in refusal(recipe_file, "sft.learning_rat=1")
    recipe_file.write_text(RECIPE + "  learnin_rate: 1e-4\n")
    said = refusal(recipe_file)
    assert "mine.yaml:12" in said and "sft.learnin_rate" in said and "'learning_rate'" in said


def test_a_wrong_value_is_refused_with_its_line(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE.replace("  corpus:\n", "  corpus:\n    pii: maybe\n"))
    said = refusal(recipe_file)
    assert "mine.yaml:4: data.corpus.pii" in said and "flag" in said


def test_an_unknown_recipe_offers_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="tiny"):
        load_recipe("tinny")


def test_a_recipe_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [1,\n")
    with pytest.raises(RecipeError, match="not YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))


def test_adapt_model_needs_a_checkpoint(recipe_file: Path) -> None:
    assert "checkpoint" in refusal(recipe_file, "flow=adapt_model")


@pytest.mark.parametrize(
    ("ship", "engine"), [("smallest_within", "vllm"), ("q8_0", "transformers"), ("bf16", "llama.cpp")]
)
def test_an_engine_that_cannot_read_what_ships_is_refused(recipe_file: Path, ship: str, engine: str) -> None:
    said = refusal(recipe_file, f"quantize.ship={ship}", "quantize.formats=[f16, q8_0, bf16]", f"serve.engine={engine}")
    assert f"serve.engine {engine} cannot read quantize.ship {ship}" in said


UNMERGED = "package.adapters=unmerged"
STEPS = "align=[{dpo: {weights: {method: METHOD}}, beside: BESIDE}]"
PAIRS = "data.preferences={sources: [{builtin: desk}]}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("serve.engine=vllm",), "serve.engine vllm cannot serve package.adapters unmerged (llama.cpp alone can here)"),
        (("quantize.formats=[bf16]", "quantize.ship=bf16"), "unmerged needs a gguf, and quantize.ship is bf16"),
        (("sft.method=full",), "keeps lora adapters, and sft.method is full: set it to lora, or merge"),
        (("sft.method=qlora",), "keeps lora adapters, and sft.method is qlora"),
        ((PAIRS, STEPS.replace("METHOD", "full").replace("BESIDE", "false")), "align.0.dpo.weights.method is full"),
        ((PAIRS, STEPS.replace("METHOD", "qlora").replace("BESIDE", "true")), "align.0.dpo.weights.method is qlora"),
    ],
)
def test_adapters_that_cannot_stay_beside_their_base_are_refused(
    recipe_file: Path, changes: tuple[str, ...], said: str
) -> None:
    assert said in refusal(recipe_file, UNMERGED, *changes)


def test_adapters_may_stay_beside_their_base(recipe_file: Path) -> None:
    for method, beside in (("lora", "false"), ("lora", "true"), ("full", "true")):
        step = STEPS.replace("METHOD", method).replace("BESIDE", beside)
        recipe = load_recipe(str(recipe_file), (UNMERGED, PAIRS, step), variables={"CHATS": "x"})
        assert recipe.package.adapters == "unmerged"


@pytest.mark.parametrize("knob", ["sft.max_length", "evaluate.max_new_tokens", "serve.context", "serve.max_tokens"])
def test_a_length_beyond_the_context_that_is_pretrained_is_refused(recipe_file: Path, knob: str) -> None:
    said = refusal(recipe_file, "pretrain.sequence_length=384", f"{knob}=385")
    assert f"{knob} 385 is more than pretrain.sequence_length 384" in said
    assert f"set {knob} to 384 or less, or raise pretrain.sequence_length" in said
    load_recipe(str(recipe_file), ("pretrain.sequence_length=384", f"{knob}=384"), variables={"CHATS": "x"})


def test_defaults_that_are_cut_to_the_context_are_no_mistake(recipe_file: Path) -> None:
    recipe = load_recipe(
        str(recipe_file), ("pretrain.sequence_length=64", "sft.max_length=64"), variables={"CHATS": "x"}
    )
    assert recipe.serve.context > 64 and recipe.evaluate.max_new_tokens > 64


def test_a_checkpoint_s_context_is_its_own(recipe_file: Path) -> None:
    changes = ("flow=adapt_model", "checkpoint={path: a/b}", "sft.max_length=4096")
    recipe = load_recipe(str(recipe_file), changes, variables={"CHATS": "x"})
    assert "sft.max_length 4096 is more than it" in recipe.too_long_for(2048, "it", "take another")
    assert recipe.too_long_for(4096, "it", "take another") == ""
