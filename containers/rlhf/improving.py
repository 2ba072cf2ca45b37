"""How a batch of answers changes the policy: clipped objectives over minibatches, several times through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from containers.formats import Rendered
from containers.muon import Muon, groups_of
from containers.rlhf.actor_critic import ActorCritic, Judged, lots_of
from containers.rlhf.config import PPOConfig

BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Batch:
    """B answers of up to L tokens, as they were drawn: nothing here changes while they are learnt from."""

    lessons: list[Rendered]
    seen: Tensor
    """(B, L) which places hold a token; so all that follow."""
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    """Whitened."""
    returns: Tensor


@dataclass(frozen=True)
class Part:
    """The tokens (K) of some of a batch's answers, in row order."""

    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Improver:
    """The optimizer's side of PPO."""

    def __init__(self, actor: ActorCritic, config: PPOConfig) -> None:
        """Train what the policy trains, and the value head."""
        self.actor, self.config = actor, config
        model = actor.policy.model
        groups = groups_of(model, config.weight_decay, turning=config.optimizer == "muon")
        head = {"params": list(actor.head.parameters()), "weight_decay": 0.0}
        self.optimizer = Muon([*groups, head], config.learning_rate, BETAS)
        value_rate = config.value_learning_rate or 1 / actor.head.in_features
        self.rates = [*[config.learning_rate] * len(groups), value_rate]
        self.trained = [p for group in groups for p in group["params"]]
        on_gpu = actor.policy.device.type
        self.scaler = torch.amp.GradScaler(on_gpu, enabled=actor.policy.precision == "fp16")
        self.steps_per_update = config.epochs * config.batch_size // config.minibatch_size

    def improve(self, batch: Batch, update: int) -> dict[str, float]:
        """Go through `batch` until its epochs are over or the policy has left it; return mean figures of the steps."""
        self.actor.policy.model.train()
        seen: list[dict[str, float]] = []
        order = torch.Generator().manual_seed(self.config.seed * 7919 + update)
        for _ in range(self.config.epochs):
            places = torch.randperm(len(batch.lessons), generator=order).tolist()
            for minibatch in lots_of(places, self.config.minibatch_size):
                self.set_rates((update - 1) * self.steps_per_update + len(seen))
                seen.append(self.step(batch, minibatch))
                bound = self.config.max_epoch_kl
                if bound is not None and seen[-1]["step_kl"] > bound:
                    break
            else:
                continue
            break
        self.actor.policy.model.eval()
        means = {name: sum(figures[name] for figures in seen) / len(seen) for name in seen[0]}
        return means | {"optimizer_steps": len(seen), "learning_rate": self.optimizer.param_groups[0]["lr"]}

    def step(self, batch: Batch, minibatch: Sequence[int]) -> dict[str, float]:
        """Take one optimizer step on the mean over the minibatch's tokens; return what was seen before it."""
        tokens = int(batch.seen[minibatch].sum())
        totals: dict[str, float] = {}
        for lot in lots_of(minibatch, self.config.micro_batch_size):
            judged = self.actor.judge([batch.lessons[i] for i in lot])
            loss, figures = self.loss_of(judged, part_of(batch, lot, self.actor.policy.device))
            self.scaler.scale(loss / tokens).backward()
            totals = {name: totals.get(name, 0.0) + float(value) / tokens for name, value in figures.items()}
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.max_gradient_norm)
        torch.nn.utils.clip_grad_norm_(self.actor.head.parameters(), self.config.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return totals | {"gradient_norm": float(norm)}

    def loss_of(self, judged: Judged, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed loss over a part's tokens, and sums of what is worth seeing (equation 9 of PPO)."""
        config = self.config
        change = judged.log_probs - part.log_probs
        ratio = change.exp()
        clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
        policy = -torch.minimum(ratio * part.advantages, clipped * part.advantages).sum()
        near = part.values + (judged.values - part.values).clamp(-config.value_clip_range, config.value_clip_range)
        errors = torch.maximum((judged.values - part.returns).square(), (near - part.returns).square())
        value = 0.5 * errors.sum()
        with torch.no_grad():
            figures = {
                "policy_loss": policy.detach(),
                "value_loss": value.detach(),
                "clipped_share": (ratio != clipped).sum(),
                "step_kl": (ratio - 1 - change).sum(),  # never negative, unbiased (Schulman 2020)
            }
        return policy + value, figures

    def set_rates(self, step: int) -> None:
        """Set every group's step size for the optimizer step that comes (a batch that is left early skips some)."""
        factor = rate_factor(self.config, step, self.config.updates * self.steps_per_update)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


def rate_factor(config: PPOConfig, step: int, steps: int) -> float:
    """Return the share of the peak step size at `step` (from 0)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    left = (steps - step) / max(1, steps - config.warmup_steps)
    return {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[config.schedule]


def part_of(batch: Batch, places: Sequence[int], device: torch.device) -> Part:
    """Return the tokens of the answers at `places`."""
    seen = batch.seen[places]
    chosen = (batch.log_probs, batch.values, batch.advantages, batch.returns)
    return Part(*(values[places][seen].to(device) for values in chosen))
