"""Measure one model on what it has never seen."""

from containers.contract import Dataset, Model, Scores
from containers.evaluate.contract import STAGE, EvaluateConfig, EvaluateInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def evaluate(name: str, model: Model, held_out: dict[str, Dataset], config: EvaluateConfig) -> Scores:
    """Score the model called `name` on the test split of each set in `held_out` (role -> dataset)."""
    inputs = EvaluateInputs(name=name, model=model, **held_out)
    return run_stage(STAGE, config, inputs, label=name).scores
