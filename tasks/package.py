"""Put everything that answers into one bundle."""

from containers.contract import Bundle, Quantized, Scores
from containers.package.contract import STAGE, PackageConfig, PackageInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def package(quantized: Quantized, scores: tuple[Scores, ...], config: PackageConfig) -> Bundle:
    """Build the Bento: model, tokenizer, template, service, page, card and provenance."""
    return run_stage(STAGE, config, PackageInputs(quantized=quantized, scores=scores)).bundle
