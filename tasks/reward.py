"""Learn what people prefer."""

from containers.contract import Dataset, Model, RewardModel
from containers.reward.contract import STAGE, RewardConfig, RewardInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def reward(base: Model, preferences: Dataset, config: RewardConfig) -> RewardModel:
    """Learn from pairs of answers how good an answer is, as one number."""
    return run_stage(STAGE, config, RewardInputs(base=base, preferences=preferences)).reward
