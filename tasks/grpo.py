"""Learn to reason."""

from containers.contract import Adapter, Dataset, Model
from containers.grpo.contract import STAGE, GRPOConfig, GRPOInputs
from infra.judges import asking, recording_of
from infra.orchestration import stage_task
from infra.sources import functions_of
from infra.stage_runner import run_stage


@stage_task
def grpo(policy: Model, problems: Dataset, config: GRPOConfig) -> Model | Adapter:
    """Answer problems that can be checked, in groups, and do more of what was right."""
    named = {
        f"grpo.rewards.{i}.path": reward.path for i, reward in enumerate(config.rewards) if reward.kind == "function"
    }
    recorded = recording_of(config.judge, "grpo.judge.recorded")
    inputs = GRPOInputs(policy=policy, problems=problems, functions=functions_of(named), recorded=recorded)
    stage, granted = asking(STAGE, config, inputs)
    return run_stage(stage, granted, inputs).model
