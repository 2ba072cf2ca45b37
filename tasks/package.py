"""Put everything that answers into one bundle."""

from containers.contract import Bundle, Quantized, Scores
from containers.package.contract import STAGE, PackageConfig, PackageInputs
from containers.unmerged import Unmerged
from infra.launch import current_launch
from infra.lineage import lineage_of
from infra.orchestration import stage_task
from infra.signing import signed
from infra.stage_runner import run_stage


@stage_task
def package(
    quantized: Quantized, scores: tuple[Scores, ...], config: PackageConfig, adapters: Unmerged | None = None
) -> Bundle:
    """Build the Bento: model, tokenizer, template, service, page, card and provenance; a new one is signed."""
    told = config.revise(provenance={**lineage_of(current_launch()), **config.provenance})
    inputs = PackageInputs(quantized=quantized, adapters=adapters, scores=scores)
    return signed(run_stage(STAGE, told, inputs).bundle)
