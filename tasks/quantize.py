"""Make the model small."""

from containers.contract import Dataset, Model, Quantized
from containers.quantize.contract import STAGE, QuantizeConfig, QuantizeInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def quantize(model: Model, corpus: Dataset, problems: Dataset | None, config: QuantizeConfig) -> Quantized:
    """Write every format asked for, measure each against its parent, and return the one that ships."""
    return run_stage(STAGE, config, QuantizeInputs(model=model, corpus=corpus, problems=problems)).shipped
