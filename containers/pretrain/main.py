"""Learn the language: predict the next token of the corpus, from random weights or from a checkpoint.

By hand: python -m containers.entrypoint FOLDER   (request.json with stage "pretrain")
"""

import os
from typing import Any

import torch
from transformers import PreTrainedModel

from containers.contract import Model, Split, StageError
from containers.formats import ChatFormat, identity_of
from containers.out import Out
from containers.pretrain.config import PretrainConfig
from containers.pretrain.contract import PretrainInputs, PretrainOutputs
from containers.pretrain.engine import Engine, crawls, device_of
from containers.pretrain.measure import Yardstick
from containers.pretrain.packing import Rows
from containers.pretrain.saving import resume, save_model_folder
from containers.pretrain.schedule import Schedule
from containers.pretrain.shape import build, described, load
from containers.pretrain.tokens import tokenize
from containers.pretrain.training import Training


def run(config: PretrainConfig, inputs: PretrainInputs, out: Out) -> PretrainOutputs:
    """Pack the corpus, train for `max_tokens`, and save the model with its tokenizer."""
    prepare(config)
    chat = ChatFormat.load(inputs.tokenizer.path)
    model = starting_model(config, inputs, chat)
    rows = packed(config, inputs, "train", config.max_tokens, out)
    unseen = packed(config, inputs, held_out(inputs), config.validation_tokens, out)
    schedule = Schedule.of(config, rows.tokens / len(rows))
    engine = Engine(model, config, config.max_tokens)
    plan = plan_of(config, inputs, schedule, model, rows)
    announce(plan, engine, out)

    step, history = resume(engine, plan, out)
    yardstick = Yardstick.of(unseen, config.validation_tokens, config.micro_batch_size, chat)
    Training(engine, schedule, rows, yardstick, chat, history, out).carry_on(step)

    folder = out.artifact("model")
    save_model_folder(model, inputs.tokenizer, config.save_dtype, folder)
    finish(history, config, engine, out)
    return PretrainOutputs(model=Model.of(folder, **identity_of(folder)))


def prepare(config: PretrainConfig) -> None:
    """Check what must divide, then fix what the bits depend on; raises StageError."""
    if config.batch_size % config.micro_batch_size:
        raise StageError(
            f"pretrain.micro_batch_size {config.micro_batch_size} does not divide batch_size {config.batch_size}: "
            "choose a divisor"
        )
    device = device_of(config)
    torch.set_num_threads(config.threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # On a GPU memory-efficient attention has no deterministic backward pass: warn and go on.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Nothing here reads memory before writing it; filling every new tensor with NaN costs 3% of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False


def starting_model(config: PretrainConfig, inputs: PretrainInputs, chat: ChatFormat) -> PreTrainedModel:
    """Return the checkpoint to continue from, or a new model."""
    if inputs.start is not None:
        return load(inputs.start, inputs.tokenizer, config)
    return build(config, chat)


def held_out(inputs: PretrainInputs) -> Split:
    """Return the split that bits per byte are measured on; raises StageError when it is empty."""
    if not inputs.corpus.rows.get("validation"):
        raise StageError("the corpus has no validation rows: raise the share of data.corpus that is held out")
    return "validation"


def packed(config: PretrainConfig, inputs: PretrainInputs, split: Split, max_tokens: int, out: Out) -> Rows:
    """Return a split tokenized and packed into rows."""
    chat = ChatFormat.load(inputs.tokenizer.path)
    return Rows(tokenize(inputs.corpus, split, max_tokens, chat, out), config.sequence_length)


def plan_of(
    config: PretrainConfig, inputs: PretrainInputs, schedule: Schedule, model: PreTrainedModel, rows: Rows
) -> dict[str, Any]:
    """Return the derived numbers of the run: the card shows them, and a checkpoint of another plan is refused."""
    per_step = config.batch_size * rows.tokens / len(rows)
    return {
        **described(model),
        "steps": schedule.steps,
        "tokens_per_step": round(per_step),
        "epoch_tokens": rows.tokens,
        "epochs": round(schedule.steps * config.batch_size / len(rows), 3),
        "rows": len(rows),
        "padding_share": round(rows.padding, 5),
        "learning_rate": config.learning_rate,
        "schedule": config.schedule,
        "seed": config.seed,
        "tokenizer": inputs.tokenizer.tokenizer,
        "started_from": inputs.start.digest if inputs.start else None,
    }


def announce(plan: dict[str, Any], engine: Engine, out: Out) -> None:
    """Say what is about to be trained and how."""
    out.say(
        f"{plan['parameters']:,} weights: {plan['layers']} layers, {plan['width']} wide, {plan['heads']} heads "
        f"({plan['kv_heads']} kv), ffn {plan['ffn']}, context {plan['context']}"
    )
    out.say(
        f"{plan['steps']:,} steps of {plan['tokens_per_step']:,} tokens, {plan['epochs']:g} epochs of "
        f"{plan['epoch_tokens']:,}; {plan['padding_share']:.2%} padding; {engine.device}, "
        f"{engine.precision}, {engine.why}"
    )
    if crawls(engine.precision, engine.device):
        out.say(
            "this CPU has no bf16 arithmetic: set pretrain.precision to fp32, which is many times faster", "warning"
        )


def finish(history: dict[str, Any], config: PretrainConfig, engine: Engine, out: Out) -> None:
    """Record the final figures and write the card."""
    bits, curve = history["bits_per_byte"], history["curve"]
    out.record(
        bits_per_byte=bits[-1]["bits_per_byte"],
        first_bits_per_byte=bits[0]["bits_per_byte"],
        loss=curve[-1]["loss"],
        parameters=history["plan"]["parameters"],
    )
    out.write_card(**history, prompt=config.prompt, precision=engine.precision, compiled=engine.compiled)
    out.say(f"bits per byte on validation: {bits[0]['bits_per_byte']:.3f} -> {bits[-1]['bits_per_byte']:.3f}")
