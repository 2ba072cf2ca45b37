"""The package stage: quantized model + scores -> a Bento with model, service, API, page, card and provenance."""

from containers.contract import Bundle, Config, Frozen, Quantized, Scores, Stage


class PackageConfig(Config):
    """What a person chooses."""


class PackageInputs(Frozen):
    """What earlier stages made."""

    quantized: Quantized
    scores: tuple[Scores, ...] = ()


class PackageOutputs(Frozen):
    """What the stage makes."""

    bundle: Bundle


STAGE = Stage("package", PackageConfig, PackageInputs, PackageOutputs, preload=("bentoml",))
