"""The reward model: a scalar head on the supervised model, trained on pairs of answers that people compared.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from containers.adapters import add_adapter, add_products, bits_and_bytes, quantization_of
from containers.contract import Model, RewardModel
from containers.formats import ChatFormat
from containers.models import DTYPES
from containers.out import Out
from containers.pairs.measures import accuracy
from containers.pairs.rows import Pair, held_out_pairs, read_pairs, training_pairs
from containers.pairs.training import Course, PairReporter, cost_of, tokenizer_of, train
from containers.policy import prepare_machine
from containers.reward.contract import RewardConfig, RewardInputs, RewardOutputs
from containers.reward.measures import figures_in, measured
from containers.reward.trainer import CURVES, PackedRewardTrainer, scores_of, trainer_arguments
from containers.reward_model import load_reward_model, save_reward_model
from containers.weights import FullWeights, QLoRAWeights


def run(config: RewardConfig, inputs: RewardInputs, out: Out) -> RewardOutputs:
    """Train on the train split, measure on held-out pairs; raises StageError where no pair can be learnt from."""
    disable_progress_bar()  # the host draws its own from out.progress
    device, precision = prepare_machine(config, out)
    chat = ChatFormat.load(inputs.base.path)
    pairs = training_pairs(inputs.preferences, chat, config.max_length)
    held_out = held_out_pairs(inputs.preferences, chat, config.max_length)
    watched = read_pairs(inputs.preferences, "validation", chat, config.max_length).kept[: config.validation_rows]

    model = prepare_model(config, inputs.base, device, precision)
    course = Course(pairs.kept, config)
    autocast = None if precision == "fp32" else DTYPES[precision]
    reporter = PairReporter(out, course, CURVES, lambda model: watch(model, watched, course.budget, autocast))
    arguments = trainer_arguments(course, config, out, (device, precision))
    trainer = PackedRewardTrainer(model, arguments, course, tokenizer_of(inputs.base), reporter)
    train(trainer, out)
    figures = cost_of(model, reporter)

    made = save(model, config, inputs.base, out)
    saved = load_reward_model(made, "fp32", device=device)
    found = measured(scores_of(saved, held_out.kept, course.budget), held_out.kept)
    out.record(**figures, **figures_in(found))
    out.write_card(
        method=config.weights.method, steps=course.steps, pairs=pairs.card(), held_out={**held_out.card(), **found},
        **{name: float(value) for name, value in out.recorded.items()},
    )  # fmt: skip
    return RewardOutputs(reward=made)


def prepare_model(config: RewardConfig, base: Model, device: torch.device, precision: str) -> Any:
    """Return the classifier to train: all weights in fp32, or an fp32 adapter and head on frozen ones."""
    weights = config.weights
    if isinstance(weights, FullWeights):
        return load_reward_model(base, "fp32", device=device)
    four_bits = quantization_of(weights.double_quantization, precision) if isinstance(weights, QLoRAWeights) else None
    model = load_reward_model(base, precision, bits_and_bytes(four_bits), device)
    checkpointing = config.gradient_checkpointing
    return add_adapter(model, weights, config.seed, gradient_checkpointing=checkpointing, task="SEQ_CLS")


def save(model: Any, config: RewardConfig, base: Model, out: Out) -> RewardModel:
    """Write outputs/reward; an adapter is merged first, into the weights that it was trained beside."""
    if not isinstance(config.weights, FullWeights):
        taught, model = model, load_reward_model(base, "fp32")
        add_products(taught, model)
    return save_reward_model(model, out.artifact("reward"), base.path)


def watch(model: Any, pairs: list[Pair], budget: int, precision: torch.dtype | None) -> dict[str, float]:
    """Return the validation figures of an epoch."""
    if not pairs:
        return {}
    scores = scores_of(model, pairs, budget, precision)
    margins = scores[:, 0] - scores[:, 1]
    return {
        "accuracy": accuracy(margins)["value"],
        "margin": float(margins.mean()),
        "loss": float(np.logaddexp(0, -margins).mean()),
    }
