"""Supervised fine-tuning: imitate good answers, with all weights (full) or an adapter (lora, qlora).

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

import time
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from containers.adapters import add_adapter, bits_and_bytes, quantization_of, save_adapter
from containers.checkpoints import newest
from containers.contract import Adapter, Model, StageError
from containers.formats import ChatFormat, identity_of
from containers.model_folder import check_model
from containers.models import be_deterministic, device_for, load_model, save_model, working_precision
from containers.out import Out
from containers.packing import Narrowing, attend_packed
from containers.sft.certificate import certify
from containers.sft.config import FullConfig, LessonsConfig, Method, QLoRAConfig
from containers.sft.contract import SFTInputs, SFTOutputs
from containers.sft.curriculum import Curriculum
from containers.sft.lessons import read_lessons
from containers.sft.trainer import LessonReporter, PackedTrainer, trainer_arguments


def run(config: Method, inputs: SFTInputs, out: Out) -> SFTOutputs:
    """Train `inputs.base` on the train split; raises StageError for a base, template or data set that cannot be."""
    device = prepare_machine(config)
    config = settle(config, device, out)
    check_model(inputs.base)
    chat = ChatFormat.load(inputs.base.path)
    lessons = read_lessons(inputs.instructions, "train", chat, config.max_length)
    certificate = certify(lessons, chat, inputs, out)
    held_out = read_lessons(inputs.instructions, "validation", chat, config.max_length).kept[: config.validation_rows]
    curriculum = Curriculum(lessons.kept, config)

    model, loaded_as = prepare_model(config, inputs.base, device)
    reporter = LessonReporter(out, curriculum, held_out, device)
    began = time.monotonic()
    train(model, curriculum, reporter, inputs.base)
    figures = figures_of(model, reporter, time.monotonic() - began, device)
    out.record(**figures)
    made = save(model, out, inputs.base, loaded_as)
    out.write_card(
        method=config.method,
        steps=curriculum.steps,
        certificate=certificate,
        **{name: float(value) for name, value in {**out.recorded, **figures}.items()},
    )
    return SFTOutputs(model=made)


def prepare_machine(config: LessonsConfig) -> torch.device:
    """Fix threads, seeds and algorithms, so that the same bits come out; return the device."""
    disable_progress_bar()  # the host draws its own from out.progress
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = device_for(config.device)
    be_deterministic(device)
    return device


def settle(config: Method, device: torch.device, out: Out) -> Method:
    """Return `config` with what `device` cannot do mapped to the nearest that it can, and say so."""
    precision, why = working_precision(config.precision, device)
    changes: dict[str, Any] = {"precision": precision}
    notes = [why]
    if isinstance(config, QLoRAConfig):
        wanted = config.compute_precision or config.precision
        changes["compute_precision"], _ = working_precision(wanted, device)
    if device.type == "cpu" and config.optimizer.startswith("paged_"):
        plain = "adamw_8bit" if config.optimizer.endswith("8bit") else "adamw"
        changes["optimizer"] = plain
        notes.append(f"a paged optimizer moves its state off a GPU, and there is none: {config.optimizer} is {plain}")
    for note in filter(None, notes):
        out.say(note)
    return config.revise(**changes)


def prepare_model(config: Method, base: Model, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """Return the model to train and, for an adapter, how its base was loaded."""
    if isinstance(config, FullConfig):
        return packed(load_model(base, "fp32", device=device), config), {}
    quantization = None
    if isinstance(config, QLoRAConfig):
        quantization = quantization_of(config.double_quantization, config.compute_precision or config.precision)
    model = load_model(base, config.precision, bits_and_bytes(quantization), device)
    checkpointing = config.gradient_checkpointing
    adapted = add_adapter(packed(model, config), config, config.seed, gradient_checkpointing=checkpointing)
    return adapted, {"precision": config.precision, "quantization": quantization}


def packed(model: Any, config: LessonsConfig) -> Any:
    """Return `model` attending within conversations, compiled if asked for."""
    try:
        attend_packed(model, config.max_length)
    except ValueError as error:
        raise StageError(f"max_length: {error}") from error
    limit = model.config.max_position_embeddings
    if config.max_length > limit:
        raise StageError(f"max_length {config.max_length}: this model has a context of {limit} tokens")
    on_gpu = next(model.parameters()).device.type == "cuda"
    if config.compile == "on" or (config.compile == "auto" and on_gpu):
        model.model.compile(dynamic=True)
    else:
        Narrowing(model)
    return model


def train(model: Any, curriculum: Curriculum, reporter: LessonReporter, base: Model) -> None:
    """Train to the end, from the newest committed checkpoint if there is one."""
    out = reporter.out
    found = newest(out.work)
    if found:
        out.say(f"going on from step {found[0]} of {curriculum.steps}")
    arguments = trainer_arguments(curriculum.config, curriculum, out, reporter.device)
    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    trainer = PackedTrainer(model, arguments, curriculum, tokenizer, reporter)
    trainer.train(resume_from_checkpoint=str(found[1]) if found else None)


def figures_of(model: Any, reporter: LessonReporter, seconds: float, device: torch.device) -> dict[str, float]:
    """Return what training cost."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    figures = {
        "trainable_parameters": trainable,
        "train_seconds": seconds,
        "tokens_per_second": reporter.tokens / max(reporter.seconds, 1e-9),
        "trained_tokens_per_second": reporter.trained / max(reporter.seconds, 1e-9),
    }
    if device.type == "cuda":
        figures["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return figures


def save(model: Any, out: Out, base: Model, loaded_as: dict[str, Any]) -> Model | Adapter:
    """Write the model or the adapter."""
    folder = out.artifact("model")
    if loaded_as:
        return save_adapter(model, folder, base, loaded_as)
    model.set_attn_implementation("sdpa")
    save_model(model, folder, base.path)
    return Model.of(folder, **identity_of(folder))
