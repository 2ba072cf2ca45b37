"""Put everything that answers into one bundle."""

from containers.contract import Bundle, Quantized, Scores
from containers.package.contract import STAGE, PackageConfig, PackageInputs
from infra.launch import current_launch
from infra.lineage import lineage_of
from infra.orchestration import stage_task
from infra.signing import signed
from infra.stage_runner import run_stage


@stage_task
def package(quantized: Quantized, scores: tuple[Scores, ...], config: PackageConfig) -> Bundle:
    """Build the Bento: model, tokenizer, template, service, page, card and provenance; a new one is signed."""
    told = config.revise(provenance={**lineage_of(current_launch()), **config.provenance})
    return signed(run_stage(STAGE, told, PackageInputs(quantized=quantized, scores=scores)).bundle)
