"""Text in, served model out.

From the command line: `slipway run tiny`; from Prefect: the deployment `train-llm`.
"""

from prefect import flow

from containers.contract import Endpoint
from flows.alignment import align
from flows.chapters import Candidate, evaluate_each, prepare, whole
from flows.form import Overrides, TrainingRecipe
from flows.recipe import Recipe, load_recipe
from flows.shipping import shipped
from infra.orchestration import run_of, short_name
from tasks.package import package
from tasks.pretrain import pretrain
from tasks.quantize import quantize
from tasks.report import report
from tasks.serve import serve
from tasks.sft import sft
from tasks.tokenizer import tokenizer


@flow(name="train-llm", flow_run_name=short_name)
def train_llm(recipe_name: TrainingRecipe = "tiny", overrides: Overrides = ()) -> Endpoint:
    """Train a language model from raw text, teach it to answer, and serve it.

    Args:
        recipe_name: A built-in recipe, or the path of a recipe file as the worker sees it.
        overrides: Changes to single numbers of the recipe, each `key.path=value`, for example sft.learning_rate=1e-4.

    """
    recipe = load_recipe(recipe_name, overrides)
    with run_of(recipe):
        made = train(recipe)
        endpoint = serve(made.bundle, recipe.serve)
        return report(endpoint, made.scores)


def train(recipe: Recipe) -> Candidate:
    """Return a packaged model and what it scored, from the recipe's text to its alignment."""
    materials = prepare(recipe.data)
    corpus, lessons, _, _ = materials

    vocabulary = tokenizer(corpus, recipe.tokenizer)
    base = pretrain(corpus, vocabulary, recipe.pretrain)
    taught = sft(base, lessons, recipe.sft)
    chat = whole(base, taught, recipe.merge)
    aligned = align(chat, materials, recipe)

    scores = evaluate_each({"base": base, "chat": chat, **aligned.models}, materials, recipe.evaluate)
    weights, adapters = shipped(base, taught, aligned, recipe)
    compact = quantize(weights, corpus, materials.problems, recipe.quantize)
    bundle = package(compact, scores, recipe.package, adapters)
    return Candidate(bundle, aligned.last, scores, materials)
