"""Align with recorded preferences."""

from containers.contract import Adapter, Dataset, Model
from containers.dpo.contract import STAGE, DPOConfig, DPOInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def dpo(policy: Model, preferences: Dataset, config: DPOConfig) -> Model | Adapter:
    """Make preferred answers likelier than rejected ones; no reward model needed."""
    return run_stage(STAGE, config, DPOInputs(policy=policy, preferences=preferences)).model
