"""Paragraphs that several flows share: preparing data, foreseeing the mask, making an adapter whole, measuring."""

from functools import partial
from typing import NamedTuple, TypeVar

from containers.certify.contract import CertifyConfig, CertifyOutputs
from containers.contract import Adapter, Bundle, Dataset, Model, Scores, Speaker, StageError
from containers.evaluate.contract import EvaluateConfig
from containers.merge.contract import MergeConfig
from flows.recipe import DataRecipe, Recipe
from infra.checkpoint import context_of, tokenizer_of
from infra.orchestration import side_by_side
from tasks.certify import certify
from tasks.data import data
from tasks.evaluate import evaluate
from tasks.merge import merge
from tasks.tokenizer import tokenizer

S = TypeVar("S", bound=Speaker)


class Materials(NamedTuple):
    """What people bring: text, lessons, judgements and problems; None where the recipe names no source."""

    corpus: Dataset
    lessons: Dataset
    judgements: Dataset | None
    problems: Dataset | None


class Candidate(NamedTuple):
    """What a flow made that may be served: the bundle, the model in it, every model's scores, and on what."""

    bundle: Bundle
    model: Model
    scores: tuple[Scores, ...]
    materials: Materials


def prepare(recipe: DataRecipe) -> Materials:
    """Clean each role's sources; what is held out of one set is kept out of those that come after it."""
    problems = data("problems", recipe.problems) if recipe.problems else None
    judgements = data("preferences", recipe.preferences, present(problems)) if recipe.preferences else None
    lessons = data("instructions", recipe.instructions, present(problems, judgements))
    corpus = data("corpus", recipe.corpus or recipe.instructions, present(problems, judgements, lessons))
    return Materials(corpus, lessons, judgements, problems)


def fitting(start: S, recipe: Recipe) -> S:
    """Return the checkpoint (or its tokenizer) itself; raises StageError where the recipe exceeds its context."""
    context = context_of(start)
    wrong = recipe.too_long_for(
        context, f"the checkpoint's context of {context} (config.json)", "start from a longer checkpoint"
    )
    if wrong:
        raise StageError(wrong)
    return start


def foreseen_mask(recipe: Recipe) -> CertifyOutputs:
    """Prove which tokens sft would train on; the tokenizer is the checkpoint's, or learnt from the recipe's corpus."""
    given = fitting(tokenizer_of(recipe.checkpoint), recipe) if recipe.flow == "adapt_model" else None
    materials = prepare(recipe.data)
    vocabulary = given or tokenizer(materials.corpus, recipe.tokenizer)
    return certify(vocabulary, materials.lessons, CertifyConfig(max_length=recipe.sft.max_length))


def present(*datasets: Dataset | None) -> tuple[Dataset, ...]:
    """Return those that there are."""
    return tuple(dataset for dataset in datasets if dataset)


def whole(base: Model, tuned: Model | Adapter, config: MergeConfig) -> Model:
    """Return a whole model: `tuned` itself, or an adapter merged into its base."""
    return merge(base, tuned, config) if isinstance(tuned, Adapter) else tuned


def evaluate_each(models: dict[str, Model], materials: Materials, config: EvaluateConfig) -> tuple[Scores, ...]:
    """Measure every model of the run on the same held-out sets, so that the report can set them side by side."""
    held_out = {"corpus": materials.corpus, "instructions": materials.lessons}
    held_out |= {"preferences": materials.judgements} if materials.judgements else {}
    held_out |= {"problems": materials.problems} if materials.problems else {}
    return tuple(side_by_side(*(partial(evaluate, name, model, held_out, config) for name, model in models.items())))
