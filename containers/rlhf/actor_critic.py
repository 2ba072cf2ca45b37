"""The policy with a value head on its own trunk: an adapter needs no second copy for it.

The head reads the trunk and does not move it. Where the value loss moved it too (Ziegler et al. 2019), a small policy
spent most of its distance from the reference on the values: at equal KL it had earned less than half.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from containers.formats import Rendered
from containers.packing import lay_out
from containers.policy import Policy
from containers.scoring import score


@dataclass(frozen=True)
class Judged:
    """What K tokens of answers come to, in row order."""

    log_probs: Tensor
    """(K) with gradient."""
    entropy: Tensor
    """(K) nats of each next-token distribution, without gradient."""
    values: Tensor
    """(K) what the head expects before each token, in standard deviations of the reward; with gradient to the head."""


class ActorCritic:
    """Policy and value in one forward pass over a packed row."""

    def __init__(self, policy: Policy, temperature: float) -> None:
        """Add a head that starts from zero: the first values are none, and say nothing wrong."""
        self.policy, self.temperature = policy, temperature
        self.model = policy.model.get_base_model() if policy.loaded_as else policy.model
        self.head = torch.nn.Linear(self.model.config.hidden_size, 1, device=policy.device)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def judge(self, lessons: Sequence[Rendered]) -> Judged:
        """Return log-probabilities, entropy and values of the trained tokens of `lessons`."""
        row = on(self.policy.device, lessons)
        targets, keep = row.pop("targets"), row.pop("logits_to_keep")
        with self.policy.autocast():
            states = self.model.model(**row, use_cache=False).last_hidden_state[0].index_select(0, keep)
            logits = self.model.lm_head(states)
        log_probs = log_softmax(logits.float() / self.temperature, -1)
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
        chosen = log_probs.gather(1, targets[:, None])[:, 0]
        return Judged(chosen, entropy, self.head(states.detach().float())[:, 0])

    @torch.no_grad()
    def look_back(self, lessons: Sequence[Rendered], micro_batch_size: int) -> tuple[Judged, Tensor]:
        """Return (what the policy makes of `lessons`, the reference's log-probabilities (K)), without gradients."""
        lots = list(lots_of(range(len(lessons)), micro_batch_size))
        mine = [self.judge([lessons[i] for i in lot]) for lot in lots]
        theirs = []
        with self.policy.as_reference() as reference, self.policy.autocast():
            for lot in lots:
                row = on(self.policy.device, [lessons[i] for i in lot])
                theirs.append(score(reference, row, row.pop("targets"), self.temperature).log_probs)
        parts = ([getattr(judged, name) for judged in mine] for name in ("log_probs", "entropy", "values"))
        return Judged(*(torch.cat(part) for part in parts)), torch.cat(theirs)


def on(device: torch.device, lessons: Sequence[Rendered]) -> dict[str, Tensor]:
    """Return the packed row of `lessons` on `device`."""
    return {name: value.to(device) for name, value in lay_out(lessons).items()}


def lots_of(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield `items` in lots of up to `size`."""
    for first in range(0, len(items), size):
        yield items[first : first + size]
