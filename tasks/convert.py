"""Keep adapters beside their base."""

from containers.contract import Model
from containers.convert.contract import STAGE, ConvertConfig, ConvertInputs
from containers.unmerged import Taught, Unmerged
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def convert(base: Model, taught: Taught, config: ConvertConfig) -> Unmerged:
    """Write the adapters in the engine's format, so that one base serves all the models that they make."""
    return run_stage(STAGE, config, ConvertInputs(base=base, **taught._asdict())).adapters
