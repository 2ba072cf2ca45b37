"""TRL's preference trainers on packed pairs: one item of the data set is one optimizer step.

The trainer keeps its loss, its metrics, its optimizers, schedules, loss scaling, saving and going on. Its batches come
from a Course; `training_step` weighs the micro-batches of a step by their pairs, so that a pair counts the same
whatever the micro-batch.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset as Rows
from torch.utils.data import SequentialSampler
from transformers import AutoTokenizer, Trainer

from containers.checkpoints import newest
from containers.contract import Model
from containers.muon import Muon, groups_of
from containers.out import Out
from containers.pairs.packing import filled
from containers.pairs.rows import Pair, PairsConfig
from containers.reporting import Reporter

BETAS = (0.9, 0.999)
SCHEDULES = {"constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Course:
    """Which pairs each optimizer step sees: a permutation per epoch, cut into batches, those into micro-batches."""

    pairs: Sequence[Pair]
    config: PairsConfig

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every pair once."""
        return -(-len(self.pairs) // self.config.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.config.max_steps or self.config.epochs * self.steps_per_epoch

    @property
    def budget(self) -> int:
        """Tokens of a micro-batch."""
        return self.config.micro_batch_size * 2 * self.config.max_length

    def batch(self, step: int) -> list[list[Pair]]:
        """Return the micro-batches of `step` (from 0): pairs of like length together, which attention is padded to."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.pairs))
        size = self.config.batch_size
        chosen = [self.pairs[i] for i in order[place * size : (place + 1) * size]]
        return list(filled(sorted(chosen, key=lambda pair: pair.longest), self.budget))


class PairReporter(Reporter):
    """Counts tokens and pairs too, and measures held-out pairs after each epoch."""

    def __init__(self, out: Out, course: Course, curves: dict[str, str], measure: Callable[[Any], dict[str, float]]):
        """`measure` takes the model and returns held-out figures; none where nothing is held out."""
        super().__init__(out, curves, shown=("loss", "pairs_per_second"))
        self.course = course
        self.measure = measure
        self.tokens = self.pairs = 0
        self.logged = (0, 0, 0.0)

    def count(self, batch: dict[str, Any]) -> None:
        """Count one step."""
        self.pairs += sum(batch["pairs"])
        self.tokens += batch["tokens"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say how far training is; measure at the end of an epoch."""
        super().on_step_end(args, state, control)
        if state.global_step == state.max_steps or state.global_step % self.course.steps_per_epoch == 0:
            figures = self.measure(kwargs["model"])
            if figures:
                self.out.metrics(state.global_step, **{f"validation_{name}": x for name, x in figures.items()})
            self.began = time.monotonic()

    def point(self, logged: dict[str, float]) -> dict[str, float]:
        """Return the point with the speed since the last one."""
        tokens, pairs, seconds = (
            now - then for now, then in zip((self.tokens, self.pairs, self.seconds), self.logged, strict=True)
        )
        self.logged = (self.tokens, self.pairs, self.seconds)
        return {**logged, "tokens_per_second": tokens / seconds, "pairs_per_second": pairs / seconds}


class PairSteps:
    """Stands before a TRL trainer; the stage says what the trainer's loss is given for a micro-batch (`inputs_of`)."""

    def __init__(self, model: Any, args: Any, course: Course, tokenizer: Any, reporter: PairReporter) -> None:
        """Wrap `model` (already a PEFT model for lora and qlora)."""
        self.course = course
        self.reporter = reporter
        super().__init__(  # type: ignore[call-arg]
            model=model,
            args=args,
            train_dataset=Rows.from_dict({"step": list(range(course.steps))}),
            data_collator=self.collate,
            processing_class=tokenizer,
        )
        reporter.attach(self)  # type: ignore[arg-type]
        for parameter in model.parameters():
            if parameter.requires_grad:  # TRL makes qlora's adapter bf16, which rounds small updates away
                parameter.data = parameter.data.float()

    def inputs_of(self, pairs: list[Pair]) -> dict[str, Any]:
        """Return what the trainer's `compute_loss` is given for a micro-batch."""
        raise NotImplementedError

    def collate(self, items: list[dict[str, int]]) -> dict[str, Any]:
        """Return the batch of one step."""
        lots = self.course.batch(items[0]["step"])
        tokens = sum(pair.tokens for lot in lots for pair in lot)
        return {"lots": [self.inputs_of(lot) for lot in lots], "pairs": [len(lot) for lot in lots], "tokens": tokens}

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # steps, not rows

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[attr-defined]

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Return the mean loss per pair of the batch; gradients are left on the parameters."""
        trainer: Any = self
        model.train()
        inputs = trainer._prepare_inputs(inputs)
        total = torch.zeros((), device=trainer.args.device)
        for lot, pairs in zip(inputs["lots"], inputs["pairs"], strict=True):
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, lot) * (pairs / sum(inputs["pairs"]))
            trainer.accelerator.backward(loss)
            total += loss.detach()
        self.reporter.count(inputs)
        return total

    def create_optimizer(self, *given: Any) -> torch.optim.Optimizer:
        """Return the optimizer, made now if it is not there yet."""
        config, trainer = self.course.config, self
        if config.optimizer == "muon" and trainer.optimizer is None:  # type: ignore[has-type]
            groups = groups_of(trainer.model, config.weight_decay, turning=True)  # type: ignore[attr-defined]
            trainer.optimizer = Muon(groups, config.learning_rate, BETAS)
        made: torch.optim.Optimizer = super().create_optimizer(*given)  # type: ignore[misc]
        return made

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the trainer's estimate assumes padded rows."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)  # type: ignore[arg-type] # without TRL's model card


def arguments_of(course: Course, out: Out, device: torch.device, precision: str) -> dict[str, Any]:
    """Return the trainer's own settings, as its config takes them; `precision` is one that `device` can work in."""
    config = course.config
    every = config.checkpoint_every
    return {
        "output_dir": str(out.work),
        "max_steps": course.steps,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": SCHEDULES.get(config.schedule, config.schedule),
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_gradient_norm,
        "optim": "adamw_torch_fused",
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": device.type == "cpu",
        "gradient_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": course.steps_per_epoch if every == "epoch" else every,
        "logging_steps": config.logging_steps,
        "logging_first_step": True,
        "seed": config.seed,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "disable_dropout": False,  # an adapter's dropout is a person's choice, and nothing else here has any
    }


def train(trainer: Any, out: Out) -> None:
    """Train to the end, from the newest committed checkpoint if there is one."""
    found = newest(out.work)
    if found:
        out.say(f"going on from step {found[0]} of {trainer.course.steps}")
    trainer.train(resume_from_checkpoint=str(found[1]) if found else None)


def tokenizer_of(source: Model) -> Any:
    """Return the tokenizer that a trainer asks for; nothing is tokenized with it."""
    return AutoTokenizer.from_pretrained(source.path, local_files_only=True)


def cost_of(model: Any, reporter: PairReporter) -> dict[str, float]:
    """Return what training cost."""
    figures = {
        "trainable_parameters": float(sum(p.numel() for p in model.parameters() if p.requires_grad)),
        "train_seconds": reporter.seconds,
        "tokens_per_second": reporter.tokens / max(reporter.seconds, 1e-9),
        "pairs_per_second": reporter.pairs / max(reporter.seconds, 1e-9),
    }
    if next(model.parameters()).is_cuda:
        figures["peak_gpu_memory_bytes"] = float(torch.cuda.max_memory_allocated())
    return figures
