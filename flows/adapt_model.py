"""A checkpoint in, the same model taught your lessons and served out.

From the command line: `slipway run qwen-lora`; from Prefect: the deployment `adapt-model`.
"""

from prefect import flow

from containers.contract import Endpoint
from flows.alignment import align
from flows.chapters import evaluate_each, fitting, prepare, whole
from flows.recipe import load_recipe
from infra.checkpoint import checkpoint_of
from infra.orchestration import run_of, short_name
from tasks.package import package
from tasks.quantize import quantize
from tasks.report import report
from tasks.serve import serve
from tasks.sft import sft


@flow(name="adapt-model", flow_run_name=short_name)
def adapt_model(recipe_name: str = "qwen-lora", overrides: tuple[str, ...] = ()) -> Endpoint:
    """Fine-tune an existing checkpoint on your conversations, and serve it.

    Args:
        recipe_name: A built-in recipe with a `checkpoint`, or the path of one.
        overrides: Changes to single numbers, each `key.path=value`.

    """
    recipe = load_recipe(recipe_name, overrides)
    with run_of(recipe):
        base = fitting(checkpoint_of(recipe.checkpoint), recipe)
        materials = prepare(recipe.data)

        chat = whole(base, sft(base, materials.lessons, recipe.sft), recipe.merge)
        aligned = align(chat, materials, recipe)

        scores = evaluate_each({"base": base, "chat": chat, **aligned.models}, materials, recipe.evaluate)
        compact = quantize(aligned.last, materials.corpus, recipe.quantize)
        bundle = package(compact, scores, recipe.package)
        endpoint = serve(bundle, recipe.serve)
        return report(endpoint, scores)
