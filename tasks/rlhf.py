"""Learn from a reward model."""

from containers.contract import Adapter, Dataset, Model, RewardModel
from containers.rlhf.contract import STAGE, RLHFConfig, RLHFInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def rlhf(policy: Model, reward: RewardModel, prompts: Dataset, config: RLHFConfig) -> Model | Adapter:
    """Draw answers and learn from what a reward model makes of them, never far from the policy (ppo, rloo)."""
    return run_stage(STAGE, config, RLHFInputs(policy=policy, reward=reward, prompts=prompts)).model
