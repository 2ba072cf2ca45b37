"""Adapters that a bundle keeps beside its weights, and the models that they make of them."""

from pathlib import Path

from containers.contract import StageError, digest_of, files_in
from containers.package.contract import PackageConfig, PackageInputs
from containers.package.weights import Weights
from containers.serve.bundle import ADAPTERS, Variant
from containers.unmerged import MADE_OF, Lineup, Unmerged


def check_adapters(config: PackageConfig, inputs: PackageInputs, weights: Weights) -> None:
    """Raise StageError where adapters are missing or not asked for, not as they were made, or not of these weights."""
    adapters = inputs.adapters
    if (config.adapters == "unmerged") != (adapters is not None):
        given = "some are" if adapters else "none are"
        raise StageError(f"package.adapters is {config.adapters}, and {given} handed in: run the recipe again")
    if adapters is None:
        return
    if digest_of(adapters.path) != adapters.digest:
        raise StageError(f"{adapters.path} is not as it was published: `slipway verify` says what changed")
    if weights.layout != "gguf":
        raise StageError(
            f"the weights are {weights.quantized.format}, and adapters are kept beside a gguf alone: "
            "ship one (`quantize.ship`), or merge them (`package.adapters=merged`)"
        )
    if adapters.base != weights.quantized.parent:
        raise StageError(
            f"the adapters belong to the base {adapters.base[:12]}, and the weights were made of "
            f"{weights.quantized.parent[:12]}: quantize the base that they were trained on"
        )


def variants_of(name: str, adapters: Unmerged | None) -> dict[str, Variant]:
    """Return the models of a bundle called `name`, by their names in the API; none where it is one whole model."""
    if adapters is None:
        return {}
    lineup = Lineup.read(adapters.path)
    models = {
        name if made == lineup.last else f"{name}-{made}": Variant(
            adapters=chain, provenance=f"{ADAPTERS}/{made}/{MADE_OF}", reference=f"{ADAPTERS}/{made}"
        )
        for made, chain in lineup.models.items()
    }
    return dict(sorted({f"{name}-base": Variant(), **models}.items()))


def link(source: Path, target: Path) -> None:
    """Make `target` a folder of links to the files of `source`."""
    for file in files_in(source):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file.resolve())
