"""Learn to answer."""

from containers.contract import Adapter, Dataset, Model
from containers.sft.contract import STAGE, SFTConfig, SFTInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def sft(base: Model, instructions: Dataset, config: SFTConfig) -> Model | Adapter:
    """Imitate good answers: all weights (full) or a small adapter beside them (lora, qlora)."""
    return run_stage(STAGE, config, SFTInputs(base=base, instructions=instructions)).model
