"""A checkpoint in, the same model taught your lessons and served out.

From the command line: `slipway run qwen-lora`; from Prefect: the deployment `adapt-model`.
"""

from prefect import flow

from containers.contract import Endpoint
from flows.alignment import align
from flows.chapters import Candidate, evaluate_each, fitting, prepare, whole
from flows.form import AdaptingRecipe, Overrides
from flows.recipe import Recipe, load_recipe
from flows.shipping import shipped
from infra.checkpoint import checkpoint_of
from infra.orchestration import run_of, short_name
from tasks.package import package
from tasks.quantize import quantize
from tasks.report import report
from tasks.serve import serve
from tasks.sft import sft


@flow(name="adapt-model", flow_run_name=short_name)
def adapt_model(recipe_name: AdaptingRecipe = "qwen-lora", overrides: Overrides = ()) -> Endpoint:
    """Fine-tune an existing checkpoint on your conversations, and serve it.

    Args:
        recipe_name: A built-in recipe with a `checkpoint`, or the path of a recipe file as the worker sees it.
        overrides: Changes to single numbers of the recipe, each `key.path=value`, as checkpoint.path=/models/x.

    """
    recipe = load_recipe(recipe_name, overrides)
    with run_of(recipe):
        made = adapt(recipe)
        endpoint = serve(made.bundle, recipe.serve)
        return report(endpoint, made.scores)


def adapt(recipe: Recipe) -> Candidate:
    """Return a packaged model and what it scored, from the recipe's checkpoint to its alignment."""
    base = fitting(checkpoint_of(recipe.checkpoint), recipe)
    materials = prepare(recipe.data)

    taught = sft(base, materials.lessons, recipe.sft)
    chat = whole(base, taught, recipe.merge)
    aligned = align(chat, materials, recipe)

    scores = evaluate_each({"base": base, "chat": chat, **aligned.models}, materials, recipe.evaluate)
    weights, adapters = shipped(base, taught, aligned, recipe)
    compact = quantize(weights, materials.corpus, materials.problems, recipe.quantize)
    bundle = package(compact, scores, recipe.package, adapters)
    return Candidate(bundle, aligned.last, scores, materials)
