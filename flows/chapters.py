"""Paragraphs that several flows share: preparing data, making an adapter whole, measuring every model."""

from typing import NamedTuple

from containers.contract import Adapter, Dataset, Model, Role, Scores
from containers.data.contract import DataConfig
from containers.evaluate.contract import EvaluateConfig
from containers.merge.contract import MergeConfig
from flows.recipe import DataRecipe
from tasks.data import data
from tasks.evaluate import evaluate
from tasks.merge import merge


class Materials(NamedTuple):
    """What people bring: text, lessons, judgements and problems; None where the recipe names no source."""

    corpus: Dataset | None
    lessons: Dataset | None
    judgements: Dataset | None
    problems: Dataset | None


def prepare(recipe: DataRecipe) -> Materials:
    """Clean each role's sources; what is held out of one set is kept out of those that come after it."""
    problems = gather("problems", recipe.problems)
    judgements = gather("preferences", recipe.preferences, problems)
    lessons = gather("instructions", recipe.instructions, problems, judgements)
    corpus = gather("corpus", recipe.corpus, problems, judgements, lessons)
    return Materials(corpus, lessons, judgements, problems)


def whole(base: Model, tuned: Model | Adapter, config: MergeConfig) -> Model:
    """Return a whole model: `tuned` itself, or an adapter merged into its base."""
    return merge(base, tuned, config) if isinstance(tuned, Adapter) else tuned


def evaluate_each(models: dict[str, Model], materials: Materials, config: EvaluateConfig) -> tuple[Scores, ...]:
    """Measure every model of the run on the same held-out sets, so that the report can set them side by side."""
    corpus, lessons, _, problems = materials
    sets = {"corpus": corpus, "instructions": lessons, "problems": problems}
    held_out = {role: dataset for role, dataset in sets.items() if dataset}
    return tuple(evaluate(name, model, held_out, config) for name, model in models.items())


def gather(role: Role, config: DataConfig | None, *earlier: Dataset | None) -> Dataset | None:
    """Return one role's dataset, or None where the recipe names no source for it."""
    return data(role, config, tuple(d for d in earlier if d)) if config else None
