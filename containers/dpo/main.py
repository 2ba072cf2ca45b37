"""Direct preference optimisation: make preferred answers likelier than rejected ones, held to where the policy began.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

from transformers.utils.logging import disable_progress_bar

from containers.dpo.contract import DPOConfig, DPOInputs, DPOOutputs
from containers.dpo.measures import HeldOut, figures_in
from containers.dpo.trainer import CURVES, trainer_of
from containers.formats import ChatFormat
from containers.out import Out
from containers.pairs.rows import held_out_pairs, read_pairs, training_pairs
from containers.pairs.training import Course, PairReporter, cost_of, train
from containers.policy import Policy


def run(config: DPOConfig, inputs: DPOInputs, out: Out) -> DPOOutputs:
    """Align on the train split, measure on held-out pairs; raises StageError where no pair can be learnt from."""
    disable_progress_bar()  # the host draws its own from out.progress
    chat = ChatFormat.load(inputs.policy.path)
    pairs = training_pairs(inputs.preferences, chat, config.max_length)
    held_out = held_out_pairs(inputs.preferences, chat, config.max_length)
    watched = read_pairs(inputs.preferences, "validation", chat, config.max_length).kept[: config.validation_rows]

    policy = Policy.load(inputs.policy, config, out, referenced=False)
    course = Course(pairs.kept, config)
    final = HeldOut(policy, course, held_out.kept, "held-out", out)
    during = HeldOut(policy, course, watched, "validation", out)
    reporter = PairReporter(out, course, CURVES, lambda model: figures_in(during.measure(model, config.beta)))
    trainer = trainer_of(policy, course, config, reporter)
    train(trainer, out)

    found = final.measure(policy.model, config.beta)
    out.record(reference_seconds=trainer.reference.seconds, **cost_of(policy.model, reporter), **figures_in(found))
    made = policy.save(out)
    out.write_card(
        method=config.weights.method, algorithm=config.loss, steps=course.steps, pairs=pairs.card(),
        held_out={**held_out.card(), **found}, **{name: float(value) for name, value in out.recorded.items()},
    )  # fmt: skip
    return DPOOutputs(model=made)
