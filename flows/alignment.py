"""The middle of the story: from a model that answers to one that answers as people prefer, and reasons."""

from typing import NamedTuple, TypeVar

from containers.contract import Adapter, Dataset, Model, RewardModel
from flows.chapters import Materials, whole
from flows.recipe import Recipe
from flows.steps import Step, names_of
from tasks.critique import critique
from tasks.dpo import dpo
from tasks.grpo import grpo
from tasks.reward import reward
from tasks.rlhf import rlhf

T = TypeVar("T")


class Taken(NamedTuple):
    """What a step made: all weights or an adapter, and the name of the model that it was trained on."""

    on: str
    tuned: Model | Adapter


class Aligned(NamedTuple):
    """Every model that alignment made, by name and in order, how each was made, and the one that goes on."""

    models: dict[str, Model]
    last: Model
    steps: dict[str, Taken]
    name: str
    """Of the last model."""


class Bench(NamedTuple):
    """What lies at hand for the next step: the model, people's judgements, and what was learnt of them."""

    model: Model
    judgements: Dataset | None
    problems: Dataset | None
    name: str = "chat"
    """Of the model."""
    taste: RewardModel | None = None


def align(chat: Model, materials: Materials, recipe: Recipe) -> Aligned:
    """Take the recipe's steps in their order; a step `beside` the line is measured, and left there."""
    bench = Bench(chat, materials.judgements, materials.problems)
    models: dict[str, Model] = {}
    steps: dict[str, Taken] = {}
    for name, step in zip(names_of(recipe.align), recipe.align, strict=True):
        if step.critique:
            bench = bench._replace(judgements=critique(bench.model, prompts_of(bench, materials), step.critique))
        elif step.reward:
            bench = bench._replace(taste=reward(bench.model, needed(bench.judgements), step.reward))
        else:
            steps[name] = Taken(bench.name, tuned(bench, step))
            models[name] = whole(bench.model, steps[name].tuned, recipe.merge)
            bench = bench if step.beside else bench._replace(model=models[name], name=name)
    return Aligned(models, bench.model, steps, bench.name)


def untouched(chat: Model) -> Aligned:
    """Return a model as it is, no step taken."""
    return Aligned({}, chat, {}, "chat")


def tuned(bench: Bench, step: Step) -> Model | Adapter:
    """Return what a step makes of the model at hand."""
    if step.dpo:
        return dpo(bench.model, needed(bench.judgements), step.dpo)
    if step.rlhf:
        return rlhf(bench.model, needed(bench.taste), needed(bench.judgements), step.rlhf)
    assert step.grpo, "a step is one of its stages"
    return grpo(bench.model, needed(bench.problems), step.grpo)


def prompts_of(bench: Bench, materials: Materials) -> Dataset:
    """Return whose prompts a constitution is tried on: people's judgements where there are any, else the lessons."""
    return bench.judgements or materials.lessons


def needed(value: T | None) -> T:
    """Return what the recipe was checked to have."""
    assert value is not None, "flows.steps.missing_in lets no such recipe in"
    return value
