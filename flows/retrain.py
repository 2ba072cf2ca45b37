"""The scheduled run: read the sources again, train where something is new, and serve it unless it is worse.

From Prefect: the deployment `retrain`, nightly once its schedule is switched on. Stages that nothing changed for are
reused, so that a night without news ends in seconds.
"""

from prefect import flow
from prefect.client.schemas.objects import State

from containers.contract import Endpoint
from flows.adapt_model import adapt
from flows.form import AnyRecipe, Overrides
from flows.promotion import compared_with_served, ended
from flows.recipe import load_recipe
from flows.train_llm import train
from infra.orchestration import run_of, short_name
from tasks.report import report
from tasks.serve import serve

MAKERS = {"train_llm": train, "adapt_model": adapt}


@flow(name="retrain", flow_run_name=short_name)
def retrain(recipe_name: AnyRecipe = "tiny", overrides: Overrides = ()) -> State[Endpoint]:
    """Train again on what the sources hold now, and replace the served model unless the new one is worse.

    Both models answer the same held-out questions. The run ends as Unchanged, Replaced or Kept, and says why.

    Args:
        recipe_name: A built-in recipe, or the path of a recipe file as the worker sees it.
        overrides: Changes to single numbers of the recipe, each `key.path=value`, for example sft.learning_rate=1e-4.

    """
    recipe = load_recipe(recipe_name, overrides)
    with run_of(recipe):
        made = MAKERS[recipe.flow](recipe)
        verdict = compared_with_served(made, recipe.evaluate)
        endpoint = serve(verdict.bundle, recipe.serve)
        report(endpoint, (*made.scores, *verdict.scores))
        return ended(verdict, endpoint)
