"""A model of the store in, the same model served out: merge, measure, quantize, package, serve.

From Prefect: the deployment `release-model`.
"""

from prefect import flow

from containers.contract import Endpoint
from flows.alignment import untouched
from flows.chapters import evaluate_each, prepare, whole
from flows.form import AnyRecipe, Overrides, StoredModel
from flows.recipe import load_recipe
from flows.shipping import shipped
from infra.ancestry import base_of, stored_model
from infra.orchestration import run_of, short_name
from tasks.package import package
from tasks.quantize import quantize
from tasks.report import report
from tasks.serve import serve


@flow(name="release-model", flow_run_name=short_name)
def release_model(model: StoredModel, recipe_name: AnyRecipe = "tiny", overrides: Overrides = ()) -> Endpoint:
    """Measure, quantize, package and serve a model that an earlier run made; an adapter is merged into its base first.

    Args:
        model: `store:<address>` of a model or an adapter (`slipway status` lists addresses).
        recipe_name: Whose data and formats to use: a built-in recipe, or the path of a file as the worker sees it.
        overrides: Changes to single numbers of the recipe, each `key.path=value`, for example quantize.formats=[q8_0].

    """
    recipe = load_recipe(recipe_name, overrides)
    with run_of(recipe):
        materials = prepare(recipe.data)
        chosen = stored_model(model)
        base = base_of(chosen)
        released = whole(base, chosen, recipe.merge)

        scores = evaluate_each({"released": released}, materials, recipe.evaluate)
        weights, adapters = shipped(base, chosen, untouched(released), recipe)
        compact = quantize(weights, materials.corpus, materials.problems, recipe.quantize)
        bundle = package(compact, scores, recipe.package, adapters)
        endpoint = serve(bundle, recipe.serve)
        return report(endpoint, scores)
