"""TRL's SFTTrainer on packed global batches: one item of its data set is one optimizer step.

The trainer keeps what it is good at (optimizers, schedules, loss scaling, saving and going on). What it sees is
changed: `training_step` gets all micro-batches of a global batch and divides by the number of trained tokens in all
of them, so that a token counts the same in a short answer and a long one, whatever the micro-batch; the head is
applied only where the loss falls.
"""

import time
from typing import Any

import torch
from datasets import Dataset as Rows
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import Trainer
from trl.trainer.sft_config import SFTConfig as TRLConfig
from trl.trainer.sft_trainer import SFTTrainer

from containers.muon import Muon, groups_of
from containers.out import Out
from containers.packing import lay_out
from containers.reporting import Reporter
from containers.sft.config import LessonsConfig
from containers.sft.curriculum import Curriculum, pack

OPTIMIZERS = {"adamw": "adamw_torch_fused", "muon": "adamw_torch_fused"}
BETAS = (0.9, 0.999)
SCHEDULES = {"constant": "constant_with_warmup"}


class PackedTrainer(SFTTrainer):
    """SFTTrainer whose batches come from a Curriculum, in its order."""

    def __init__(self, model: Any, args: TRLConfig, curriculum: Curriculum, tokenizer: Any, reporter: "LessonReporter"):
        """Wrap `model` (already a PEFT model for lora and qlora)."""
        self.curriculum = curriculum
        self.reporter = reporter
        super().__init__(
            model=model,
            args=args,
            train_dataset=Rows.from_dict({"step": list(range(curriculum.steps))}),
            data_collator=self.collate,
            processing_class=tokenizer,
        )
        reporter.attach(self)
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # TRL makes qlora's adapter bf16, which rounds small updates away
                parameter.data = parameter.data.float()

    def collate(self, items: list[dict[str, int]]) -> dict[str, Any]:
        """Return the global batch of one step."""
        micro_batches = [lay_out(lessons) for lessons in self.curriculum.batch(items[0]["step"])]
        return {
            "micro_batches": micro_batches,
            "tokens": sum(len(m["gather"]) for m in micro_batches),
            "trained": sum(len(m["targets"]) for m in micro_batches),
        }

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Return the mean loss per trained token of the global batch; gradients are left on the parameters."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        total = torch.zeros((), device=self.args.device)
        for micro_batch in inputs["micro_batches"]:
            with self.compute_loss_context_manager():
                loss = summed_loss(model, micro_batch) / inputs["trained"]
            self.accelerator.backward(loss)
            total += loss.detach()
        self.reporter.count(inputs)
        return total

    def create_optimizer(self, *given: Any) -> torch.optim.Optimizer:
        """Return the optimizer, made now if it is not there yet."""
        config = self.curriculum.config
        if config.optimizer == "muon" and self.optimizer is None:
            groups = groups_of(self.model, config.weight_decay, turning=True)
            self.optimizer = Muon(groups, config.learning_rate, BETAS)
        return super().create_optimizer(*given)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the trainer's estimate assumes padded rows."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)  # without TRL's model card


def summed_loss(model: Any, packed: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the summed cross-entropy (nats, fp32) of a packed row's trained tokens."""
    row = {name: value for name, value in packed.items() if name != "targets"}
    logits = model(**row, use_cache=False).logits[0]
    return cross_entropy(logits.float(), packed["targets"], reduction="sum")


@torch.no_grad()
def mean_loss(model: Any, lessons: list[Any], config: LessonsConfig, device: torch.device) -> float:
    """Return the mean loss per trained token (nats) of held-out lessons."""
    training = model.training
    model.eval()
    loss, count = 0.0, 0
    for lot in pack(lessons, config):
        packed = {name: value.to(device) for name, value in lay_out(lot).items()}
        loss += float(summed_loss(model, packed))
        count += len(packed["targets"])
    model.train(training)
    return loss / count


def trainer_arguments(config: LessonsConfig, curriculum: Curriculum, out: Out, device: torch.device) -> TRLConfig:
    """Return the trainer's own settings; `config.precision` is one that `device` can work in."""
    every = config.checkpoint_every
    optimizer = OPTIMIZERS.get(config.optimizer, config.optimizer)
    return TRLConfig(
        output_dir=str(out.work),
        max_steps=curriculum.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=SCHEDULES.get(config.schedule, config.schedule),
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_gradient_norm,
        optim=optimizer.removeprefix("paged_") if device.type == "cpu" else optimizer,
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        use_cpu=device.type == "cpu",
        gradient_checkpointing=config.gradient_checkpointing,
        save_strategy="steps",
        save_steps=curriculum.steps_per_epoch if every == "epoch" else every,
        logging_steps=config.logging_steps,
        logging_first_step=True,
        seed=config.seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


class LessonReporter(Reporter):
    """Counts tokens too, and measures the validation loss after each epoch."""

    def __init__(self, out: Out, curriculum: Curriculum, held_out: list[Any], device: torch.device) -> None:
        """`held_out` lessons may be none."""
        super().__init__(out, shown=("loss", "tokens_per_second"))
        self.curriculum = curriculum
        self.held_out = held_out
        self.device = device
        self.tokens = self.trained = 0
        self.logged = (0, 0.0)

    def count(self, batch: dict[str, Any]) -> None:
        """Count the tokens of one global batch."""
        self.tokens += batch["tokens"]
        self.trained += batch["trained"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say how far training is; validate at the end of an epoch."""
        super().on_step_end(args, state, control)
        last = state.global_step == state.max_steps
        if self.held_out and (last or state.global_step % self.curriculum.steps_per_epoch == 0):
            loss = mean_loss(kwargs["model"], self.held_out, self.curriculum.config, self.device)
            self.out.metrics(state.global_step, validation_loss=loss)
            self.out.record(validation_loss=loss)
            self.began = time.monotonic()

    def point(self, logged: dict[str, float]) -> dict[str, float]:
        """Return the point with the speed since the last one."""
        tokens, seconds = self.tokens - self.logged[0], self.seconds - self.logged[1]
        self.logged = (self.tokens, self.seconds)
        return {**logged, "tokens_per_second": tokens / seconds}
