"""Give people something to rank."""

from containers.candidates.contract import STAGE, CandidatesConfig, CandidatesInputs
from containers.contract import Candidates, Dataset, Model
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def candidates(model: Model, prompts: Dataset, config: CandidatesConfig) -> Candidates:
    """Draw several answers of the model to each prompt."""
    return run_stage(STAGE, config, CandidatesInputs(model=model, prompts=prompts)).candidates
