"""Recipe: the typed shape of flows/recipes/*.yaml, and the door that checks one before anything starts."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import ValidationError, model_validator

from containers.contract import Config, StageError
from containers.convert.contract import ConvertConfig
from containers.data.contract import DataConfig
from containers.evaluate.contract import EvaluateConfig
from containers.merge.contract import MergeConfig
from containers.package.contract import PackageConfig
from containers.pretrain.contract import PretrainConfig
from containers.quantize.contract import QuantizeConfig
from containers.serve.contract import ServeConfig
from containers.sft.contract import SFTConfig
from containers.tokenizer.contract import TokenizerConfig
from flows.engines import unkeepable, unservable
from flows.licences import licences_of, refuse_forbidden
from flows.locations import located
from flows.mistakes import explain, lines_of
from flows.steps import Step, missing_in

RECIPES = Path(__file__).parent / "recipes"
CUT_TO_CONTEXT = (
    ("evaluate", "max_new_tokens"), ("quantize", "passage_tokens"), ("serve", "context"), ("serve", "max_tokens"),
)  # fmt: skip
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class RecipeError(StageError):
    """A recipe that cannot be used: what, where (file:line), what to do."""


class DataRecipe(Config):
    """The sources of each role; a role that is absent is not used."""

    instructions: DataConfig
    """Conversations to imitate."""
    corpus: DataConfig | None = None
    """Plain text to learn the language from; its test split measures bits per byte. Absent: the lessons' own text."""
    preferences: DataConfig | None = None
    """Pairs of answers, the better one named."""
    problems: DataConfig | None = None
    """Questions with a checkable answer."""


class CheckpointConfig(Config):
    """A model to start from: a Hugging Face folder or a hub name."""

    path: str
    """Folder, owner/name on the hub, or `store:<address>` of a model that an earlier run made."""
    revision: str | None = None
    """Commit of the hub model; the newest is looked up and recorded when absent."""
    licence: str = ""
    """What the weights may be used under, best as an SPDX name; absent: what the folder's card (README.md) says."""


class Recipe(Config):
    """Every number that a person chooses, for one run from data to served model."""

    description: str
    """One line for `slipway recipes`."""
    flow: Literal["train_llm", "adapt_model"] = "train_llm"
    """train_llm starts from text, adapt_model from `checkpoint`."""
    checkpoint: CheckpointConfig | None = None
    """What adapt_model starts from."""
    data: DataRecipe
    """Where the text, the lessons and the problems come from."""
    forbid_licences: tuple[str, ...] = ()
    """Licences under which nothing may come, as patterns: `["*-nc-*", unknown]`. `unknown` is what nobody named."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How the vocabulary is learnt (train_llm)."""
    pretrain: PretrainConfig = PretrainConfig()
    """How the language is learnt (train_llm)."""
    sft: SFTConfig
    """How answering is learnt: `method` is full, lora or qlora."""
    merge: MergeConfig = MergeConfig()
    """How an adapter is folded into its base."""
    align: tuple[Step, ...] = ()
    """Alignment and reasoning after sft, in this order: `[{reward: {}}, {rlhf: {algorithm: ppo}}, {grpo: {}}]`."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What every model of the run is measured on."""
    quantize: QuantizeConfig = QuantizeConfig()
    """Which formats are made, and the rule that picks what ships."""
    convert: ConvertConfig = ConvertConfig()
    """How adapters that stay beside their base are compared with it (`package.adapters: unmerged`)."""
    package: PackageConfig = PackageConfig()
    """What the bundle says of itself."""
    serve: ServeConfig = ServeConfig()
    """Where the bundle answers."""

    @model_validator(mode="after")
    def needs_what_its_flow_starts_from(self) -> Self:
        """Refuse a recipe whose flow would find nothing to start from."""
        if self.flow == "train_llm" and self.data.corpus is None:
            raise ValueError("train_llm needs data.corpus, the text that it starts from")
        if self.flow == "adapt_model" and self.checkpoint is None:
            raise ValueError("adapt_model needs a checkpoint, the model that it starts from")
        return self

    @model_validator(mode="after")
    def steps_find_what_they_need(self) -> Self:
        """Refuse steps of alignment for which the recipe has no data."""
        missing = missing_in(self.align, pairs=bool(self.data.preferences), problems=bool(self.data.problems))
        if missing:
            raise ValueError(missing)
        return self

    @model_validator(mode="after")
    def fits_the_context_that_is_pretrained(self) -> Self:
        """Refuse lengths that the model of this recipe could never hold."""
        length = self.pretrain.sequence_length
        wrong = self.too_long_for(length, f"pretrain.sequence_length {length}", "raise pretrain.sequence_length")
        if self.flow == "train_llm" and wrong:
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def ships_what_its_engine_serves(self) -> Self:
        """Refuse an engine that could not read what ships, and adapters that cannot stay beside their base."""
        wrong = unservable(self.quantize, self.package, self.serve)
        wrong = wrong or unkeepable(self.package, self.sft, self.align)
        if wrong:
            raise ValueError(wrong)
        return self

    def too_long_for(self, context: int, named: str, remedy: str) -> str:
        """Return which length exceeds a model's context of that many tokens, and what to do; empty where all fit.

        Later stages cut their defaults to the context, so there only another length than the default is held to it.
        """
        lengths = {"sft.max_length": self.sft.max_length}
        for stage, knob in CUT_TO_CONTEXT:
            config: Config = getattr(self, stage)
            if getattr(config, knob) != type(config).model_fields[knob].default:
                lengths[f"{stage}.{knob}"] = getattr(config, knob)
        return "; ".join(
            f"{knob} {length} is more than {named}, all that the model can read at once: "
            f"set {knob} to {context} or less, or {remedy}"
            for knob, length in lengths.items()
            if length > context
        )


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with Slipway."""
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """Return the file of a built-in name or a path; raises RecipeError with the nearest right name."""
    if name in recipe_names():
        return RECIPES / f"{name}.yaml"
    file = Path(name)
    if file.is_file():
        return file.resolve()
    near = difflib.get_close_matches(name, recipe_names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(recipe_names())}, or give a file"
    raise RecipeError(f"there is no recipe {name!r}: {hint}")


def load_recipe(name: str, overrides: Sequence[str] = (), variables: Mapping[str, str] | None = None) -> Recipe:
    """Return the checked recipe called `name` (or at that path) with `key.path=value` overrides applied.

    `${NAME}` and `${NAME:-default}` in a value are replaced from `variables` (default: the environment). Relative
    paths are relative to the recipe's file. Raises RecipeError, and StageError where a licence is forbidden.
    """
    file = recipe_file(name)
    text = file.read_text(encoding="utf-8")
    try:
        values, lines = yaml.safe_load(text), lines_of(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{file.name}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{file.name}: a recipe is a mapping of stage names to settings")
    for override in overrides:
        apply(override, values)
    filled = fill(values, os.environ if variables is None else variables, file)
    try:
        recipe = Recipe.model_validate(located(filled, file.parent))
    except ValidationError as error:
        raise RecipeError("\n".join(explain(error, Recipe, file.name, lines))) from error
    return licensed(recipe)


def licensed(recipe: Recipe) -> Recipe:
    """Return the recipe with every licence known in its `package`; raises StageError where one is forbidden."""
    found = {**licences_of(recipe), **recipe.package.licences}
    refuse_forbidden(found, recipe.forbid_licences)
    return recipe.revise(package=recipe.package.revise(licences=found))


def apply(override: str, values: dict[str, Any]) -> None:
    """Set one `key.path=value` (value read as YAML) in `values`."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"override {override!r} is not of the form key.path=value")
    *parents, last = path.split(".")
    place: Any = values
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise RecipeError(f"override {override!r}: {key!r} holds a value, not settings")
    place[int(last) if isinstance(place, list) else last] = yaml.safe_load(value)


def fill(value: Any, variables: Mapping[str, str], file: Path) -> Any:
    """Return `value` with `${NAME}` replaced in every string."""

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = variables.get(name, default)
        if found is None:
            raise RecipeError(
                f"{file.name} needs the variable {name}: set it, for example `{name}=/my/data slipway ...`"
            )
        return found

    if isinstance(value, dict):
        return {key: fill(item, variables, file) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, variables, file) for item in value]
    return VARIABLE.sub(replace, value) if isinstance(value, str) else value
