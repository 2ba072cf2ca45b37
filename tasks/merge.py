"""Fold an adapter into its base."""

from containers.contract import Adapter, Model
from containers.merge.contract import STAGE, MergeConfig, MergeInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def merge(base: Model, adapter: Adapter, config: MergeConfig) -> Model:
    """Add the adapter's product to the weights that it was trained on."""
    return run_stage(STAGE, config, MergeInputs(base=base, adapter=adapter)).model
