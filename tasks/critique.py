"""Learn from a constitution."""

from containers.contract import Dataset, Model
from containers.critique.contract import STAGE, CritiqueConfig, CritiqueInputs
from infra.judges import asking, recording_of
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def critique(model: Model, prompts: Dataset, config: CritiqueConfig) -> Dataset:
    """Have the model's answers criticised and written anew by a constitution; the pairs are preferences."""
    recorded = recording_of(config.judge, "critique.judge.recorded")
    inputs = CritiqueInputs(model=model, prompts=prompts, recorded=recorded)
    stage, granted = asking(STAGE, config, inputs)
    return run_stage(stage, granted, inputs).preferences
