"""The evaluate stage: a model and held-out sets -> scores with intervals and every answer."""

from containers.contract import Config, Dataset, Frozen, Model, Scores, Stage


class EvaluateConfig(Config):
    """What a person chooses."""


class EvaluateInputs(Frozen):
    """What earlier stages made; a set that is absent is not measured."""

    name: str
    """The model's name in the run: base, chat, aligned, reasoner."""
    model: Model
    corpus: Dataset | None = None
    instructions: Dataset | None = None
    problems: Dataset | None = None


class EvaluateOutputs(Frozen):
    """What the stage makes."""

    scores: Scores


STAGE = Stage("evaluate", EvaluateConfig, EvaluateInputs, EvaluateOutputs, preload=("transformers",))
