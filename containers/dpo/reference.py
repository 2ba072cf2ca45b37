"""What the reference thinks of the answers, computed once: no second copy of the weights, no second forward pass.

The reference is the policy before its first step, with its adapter (which adds nothing yet) switched off.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from containers.formats import Rendered
from containers.out import Out
from containers.pairs.packing import filled, moved, predicted_row
from containers.pairs.rows import Pair
from containers.policy import Policy
from containers.scoring import score

KEPT = "reference.npz"
"""In work/: numbers of the rows and their log-probabilities, for a run that goes on."""


class Reference:
    """Log-probabilities (nats) of answers under the reference, by the number of the row."""

    def __init__(self, policy: Policy, budget: int, out: Out) -> None:
        """`policy` is asked before its first step; rows hold `budget` tokens."""
        self.policy, self.budget, self.out = policy, budget, out
        self.known: dict[int, np.ndarray] = {}
        self.seconds = 0.0
        """That asking took."""

    def learn(self, pairs: Sequence[Pair], name: str) -> "Reference":
        """Ask the reference about `pairs`, or read what it said before this run was killed."""
        file = self.out.work / f"{name}-{KEPT}"
        numbers = np.array([pair.number for pair in pairs])
        if file.is_file():
            kept = np.load(file)
            if np.array_equal(kept["numbers"], numbers):
                self.known = dict(zip(numbers.tolist(), kept["log_probs"], strict=True))
                return self
        began = time.monotonic()
        with self.policy.as_reference() as model, self.policy.autocast():
            log_probs = log_probs_of(model, pairs, self.budget)
        self.seconds = time.monotonic() - began
        scratch = file.with_suffix(".tmp.npz")
        np.savez(scratch, numbers=numbers, log_probs=log_probs)
        scratch.rename(file)
        self.known = dict(zip(numbers.tolist(), log_probs, strict=True))
        return self

    def of(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the log-probabilities (pairs, 2) of chosen and rejected answers."""
        return np.stack([self.known[pair.number] for pair in pairs])


@torch.no_grad()
def log_probs_of(model: Any, pairs: Sequence[Pair], budget: int) -> np.ndarray:
    """Return the summed log-probabilities (pairs, 2), fp32, of chosen and rejected answers given their prompts."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    found = [lot_log_probs(model, lot, device) for lot in filled(pairs, budget)]
    model.train(training)
    return torch.cat(found).numpy() if found else np.empty((0, 2), np.float32)


def lot_log_probs(model: Any, lot: list[Pair], device: torch.device) -> torch.Tensor:
    """Return the log-probabilities (pairs, 2) of one packed row, on the CPU."""
    answers = [pair.chosen for pair in lot] + [pair.rejected for pair in lot]
    targets = [i for answer in answers for i, trained in zip(answer.ids, answer.trained, strict=True) if trained]
    made = score(model, moved(predicted_row(lot), device), torch.tensor(targets, device=device))
    sums = [part.sum() for part in made.log_probs.split([sum(answer.trained) for answer in answers])]
    return torch.stack(sums).view(2, -1).T.float().cpu()


def strangers_of(pairs: Sequence[Pair], max_length: int) -> list[Pair]:
    """Return each prompt with the answers to the next one, cut to `max_length`: what KTO estimates its KL on."""
    made = []
    for pair, other in zip(pairs, [*pairs[1:], *pairs[:1]], strict=True):
        room = max_length - len(pair.prompt)
        chosen, rejected = (Rendered(answer.ids[:room], answer.trained[:room]) for answer in other.answers)
        made.append(Pair(pair.number, pair.id, pair.task, pair.prompt, chosen, rejected))
    return made
