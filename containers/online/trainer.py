"""What TRL's online trainers share here: rollouts by our own generation, seeded by the step; scoring without padding.

A trainer of TRL keeps its loss, advantages, metrics, optimizers and saving. It is changed at its joints only: how a
prompt is rendered, how answers are drawn (`containers.generation`), what answers `fused_lm_head=True`
(`containers.scoring`), what the reference is (`containers.policy`). Rollouts are seeded by (seed, step) and checkpoints
taken only where one is used up, so that a killed run goes on to the same bits.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as Rows
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, Trainer

from containers.decoding import Decoder
from containers.generation import Draw, Job, drawn_all
from containers.health import Guard, Sample
from containers.models import DTYPES
from containers.muon import Muon, groups_of
from containers.online.config import OnlineConfig
from containers.online.packing import shared_row
from containers.out import Out
from containers.policy import Policy
from containers.scoring import IGNORED, answer_packed

BETAS = (0.9, 0.999)
SCHEDULES = {"constant": "constant_with_warmup"}
GUARD = "guard.json"
"""Beside a checkpoint: what the health guard has seen so far."""


class OnlineSteps:
    """Stands before a trainer of TRL that draws its own answers."""

    def __init__(self, policy: Policy, arguments: Any, rows: list[dict[str, Any]], rewards: list[Any]) -> None:
        """Train `policy` on `rows` (`prompt`: messages, `ids`: theirs, and what the rewards read)."""
        self.policy = policy
        self.config: OnlineConfig
        self.guard: Guard
        self.decoder: Decoder | None = None
        beta, arguments.beta = arguments.beta, 0.0  # the reference is the policy's own affair, not loaded from a hub
        super().__init__(  # type: ignore[call-arg]
            model=policy.model,
            args=arguments,
            reward_funcs=rewards,
            train_dataset=Rows.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(policy.source.path, local_files_only=True),
        )
        if "ref" in getattr(policy.model, "peft_config", ()):  # RLOO's copy of the adapter: the reference has none
            policy.model.delete_adapter("ref")
        self.beta = arguments.beta = beta
        self.ref_model = policy.frozen
        self.eos_token_ids = list(policy.chat.stop_ids)
        for model in (causal_model(policy.model), policy.frozen):
            if model is not None:
                answer_packed(model, arguments.temperature)
        for parameter in policy.model.parameters():
            if parameter.requires_grad:  # TRL makes qlora's adapter bf16, which rounds small updates away
                parameter.data = parameter.data.float()

    def _tokenize_prompts(self, _: Any) -> tuple[list[list[int]], None, dict[str, Any]]:
        return self.asked, None, {}

    def rollout(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Draw an answer to each prompt, the same ones for the same weights, seed and step."""
        trainer: Any = self
        stops = frozenset(trainer.eos_token_ids)
        jobs = [Job(ids, trainer.max_completion_length, lambda made: made[-1] in stops) for ids in prompts]
        draw = Draw(trainer.temperature, seed_of(trainer.args.seed, trainer.state.global_step), trainer.args.device)
        model = self.policy.model
        model.eval()
        with self.policy.autocast():
            answers = drawn_all(self.speaker(), jobs, len(jobs), lambda _: None, draw)
        model.train()
        self.drawn = pad_sequence([torch.tensor(answer.log_probs) for answer in answers], batch_first=True)
        return [answer.ids for answer in answers]

    def speaker(self) -> Any:
        """Return what answers: a Decoder with the weights of this step, or the policy itself where none fits."""
        if self.policy.loaded_as or not Decoder.is_known(self.policy.model):
            return self.policy.model
        if self.decoder is None:
            self.decoder = Decoder(self.policy.model, DTYPES[self.policy.precision])
        else:
            self.decoder.take(self.policy.model)
        return self.decoder

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.asked = [row["ids"] for row in inputs]
        made: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        made["drawn_log_probs"] = self.drawn.to(made["advantages"].device)
        return made

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *_: Any, **options: Any
    ) -> tuple[Any, Any, None]:
        """Return log-probabilities and entropies (B, logits_to_keep), from rows that share their prompts."""
        trainer: Any = self
        labels = input_ids.masked_fill(attention_mask == 0, IGNORED)
        labels[:, :-logits_to_keep] = IGNORED
        found = []
        for first in range(0, len(labels), self.config.micro_batch):
            lot = slice(first, first + self.config.micro_batch)
            given = {"input_ids": input_ids[lot], "attention_mask": attention_mask[lot], "labels": labels[lot]}
            row = shared_row(input_ids[lot], attention_mask[lot], labels[lot, 1:] != IGNORED)
            with trainer.accelerator.autocast():
                found.append(model(**given, row=row, fused_lm_head=True))
        log_probs = torch.cat([made.log_probs for made in found])[:, -logits_to_keep:]
        self.scored = log_probs.detach()
        if options.get("compute_entropy"):
            return log_probs, torch.cat([made.entropy for made in found])[:, -logits_to_keep:], None
        return log_probs, None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Return TRL's loss; log how far trainer and rollout are apart before the weights move (nats per token)."""
        trainer: Any = self
        loss: torch.Tensor = super()._compute_loss(model, inputs)  # type: ignore[misc]
        if trainer._step % trainer.args.steps_per_generation < trainer.args.gradient_accumulation_steps:
            mask = inputs["completion_mask"].bool()
            gap = (self.scored - inputs["drawn_log_probs"])[mask].abs().mean()
            trainer._metrics["train"]["log_prob_gap"].append(float(gap))
        return loss

    def create_optimizer(self, *given: Any) -> torch.optim.Optimizer:
        """Return the optimizer, made now if it is not there yet."""
        trainer: Any = self
        if self.config.optimizer == "muon" and trainer.optimizer is None:
            groups = groups_of(trainer.model, self.config.weight_decay, turning=True)
            trainer.optimizer = Muon(groups, self.config.learning_rate, BETAS)
        made: torch.optim.Optimizer = super().create_optimizer(*given)  # type: ignore[misc]
        return made

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer: Any = self
        Trainer._save_checkpoint(trainer, model, trial)  # without TRL's model card
        state = json.dumps(self.guard.state_dict(), sort_keys=True)
        folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        (folder / GUARD).write_text(state, encoding="utf-8")

    def samples(self) -> list[Sample]:
        """Return the answers of the last rollout with what they earned, group by group."""
        trainer: Any = self
        logs, weights = trainer._logs, trainer.reward_weights.tolist()
        parts = zip(*logs["rewards"].values(), strict=True)
        earned = [sum(w * x for w, x in zip(weights, part, strict=True) if not math.isnan(x)) for part in parts]
        told = zip(logs["prompt"], logs["completion"], earned, strict=True)
        return [Sample(prompt[-1]["content"], turns[-1]["content"], reward) for prompt, turns, reward in told]

    def idle_share(self, samples: Sequence[Sample]) -> float:
        """Return the share of groups that teach nothing though they are not solved: all the same, and not all right."""
        trainer: Any = self
        size = trainer.num_generations
        right = list(trainer._logs["rewards"].get("answer", [0.0] * len(samples)))
        groups = [slice(first, first + size) for first in range(0, len(samples), size)]
        earned = [[sample.reward for sample in samples[group]] for group in groups]
        idle = [max(e) - min(e) < 1e-6 and min(right[g]) < 1 for e, g in zip(earned, groups, strict=True)]
        return sum(idle) / len(idle)


def seed_of(seed: int, step: int) -> int:
    """Return the seed of the rollout that begins at `step`."""
    return (seed * 1_000_003 + step) % 2**63


def causal_model(model: Any) -> Any:
    """Return the causal language model below an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def arguments_of(config: OnlineConfig, policy: Policy, out: Out) -> dict[str, Any]:
    """Return what TRL's config for grpo and rloo is made from; `policy.precision` is what the device can work in."""
    rollout_steps = config.steps_per_rollout
    return {
        "output_dir": str(out.work),
        "max_steps": config.steps,
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": config.passes_per_step,
        "steps_per_generation": config.passes_per_step * rollout_steps,
        "num_generations": config.answers_per_prompt,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "beta": config.beta,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": SCHEDULES.get(config.schedule, config.schedule),
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_gradient_norm,
        "optim": "adamw_torch_fused",
        "bf16": policy.precision == "bf16",
        "fp16": policy.precision == "fp16",
        "use_cpu": policy.device.type == "cpu",
        "gradient_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": config.checkpoint_every * rollout_steps,
        "logging_steps": 1,  # the health guard sees every step; the curves are thinned by the reporter
        "logging_first_step": True,
        "seed": config.seed,
        "report_to": "none",
        "disable_tqdm": True,
        "disable_dropout": False,  # an adapter's dropout is a person's choice, and nothing else here has any
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }
