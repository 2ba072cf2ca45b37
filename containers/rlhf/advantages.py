"""From scores to what is learnt: rewards per token, advantages, and two numbers steered by what is seen."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

NONE = 1e-6


@dataclass
class RunningScale:
    """Mean and spread of all scores so far (Chan et al. 1983): rewards keep one unit, whatever the model."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    """Summed squared distance from the mean."""

    @property
    def spread(self) -> float:
        """The standard deviation; 1 before two scores have been seen, or while all are alike."""
        spread = math.sqrt(self.squares / self.count) if self.count > 1 else 0.0
        return spread if spread > NONE else 1.0

    def add(self, scores: Tensor) -> None:
        """Count scores (N) in."""
        if not len(scores):
            return
        values = scores.double()
        count, mean = len(values), float(values.mean())
        total, shift = self.count + count, mean - self.mean
        self.squares += float((values - mean).square().sum()) + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return asdict(self)


def token_rewards(log_ratio: Tensor, seen: Tensor, rewards: Tensor, kl_coefficient: float) -> Tensor:
    """Return rewards per token (B, L): the cost of each token's distance from the reference, the answer's reward last.

    `log_ratio` (B, L): log-probability less the reference's; `seen` (B, L): which places hold a token; `rewards` (B).
    """
    last = seen.sum(1, keepdim=True) - 1
    return (-kl_coefficient * log_ratio * seen).scatter_add(1, last, rewards[:, None])


def advantages_of(rewards: Tensor, values: Tensor, seen: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Return generalised advantages (B, L) of rewards and values (B, L); Schulman et al. 2016, equation 16."""
    values, made = values * seen, torch.zeros_like(values)
    following, after = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for place in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, place] + gamma * after - values[:, place]
        following = (delta + gamma * gae_lambda * following) * seen[:, place]
        made[:, place], after = following, values[:, place]
    return made


def whitened(values: Tensor, seen: Tensor) -> Tensor:
    """Return values (B, L) with mean 0 and spread 1 over the places that are seen."""
    kept = values[seen]
    return (values - kept.mean()) / (kept.std(correction=0) + 1e-8) * seen


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """Return the share of the returns' variance that the values foresaw (1: all, 0: none, below: worse than none)."""
    variance = returns.var(correction=0)
    return float(1 - (returns - values).var(correction=0) / variance) if variance > NONE else 0.0


def steered(coefficient: float, kl: float, target: float | None, share: float) -> float:
    """Return the KL coefficient for the next batch; `share`: the batch's part of the horizon (Ziegler 2019, 2.2)."""
    if target is None:
        return coefficient
    return coefficient * (1 + min(max(kl / target - 1, -0.2), 0.2) * share)
