"""Prove what the loss will fall on."""

from containers.certify.contract import STAGE, CertifyConfig, CertifyInputs, CertifyOutputs
from containers.contract import Dataset, Tokenizer
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def certify(base: Tokenizer, instructions: Dataset, config: CertifyConfig) -> CertifyOutputs:
    """Make the mask certificate of the lessons, as sft would before it trains."""
    return run_stage(STAGE, config, CertifyInputs(base=base, instructions=instructions))
