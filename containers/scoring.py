"""Log-probabilities without a padding token: what TRL's trainers ask of a model, answered from one packed row.

TRL's preference and policy trainers pad a batch, run it whole, and read `log_probs` (and company) per token from
`model(input_ids, attention_mask, labels, fused_lm_head=True)`. `answer_packed` makes a model answer that call from a
packed row in which every sequence is blind to the others, up to its last scored token, with the head applied only where
a token is scored. Losses, metrics and everything else stay TRL's.
"""

import functools
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from trl.trainer.utils import FusedCausalLMOutput

IGNORED = -100


@dataclass(frozen=True)
class Scored:
    """What K scored tokens come to, in row order."""

    log_probs: Tensor
    """(K), fp32, with gradient."""
    entropy: Tensor
    """(K) nats of each next-token distribution, without gradient."""
    logits: Tensor
    """(K, vocabulary), fp32, divided by the temperature."""


def rows_of(input_ids: Tensor, attention_mask: Tensor, scored: Tensor) -> dict[str, Tensor]:
    """Return a padded batch (B, L), either side, as the packed row of `containers.packing.lay_out`.

    `scored` (B, L - 1): whether the token after each place is scored. What comes after a row's last such place is left
    out: nothing reads it.
    """
    predicts = torch.nn.functional.pad(scored, (0, 1))
    leads = predicts.flip(1).cumsum(1).flip(1) > 0
    kept = attention_mask.bool() & leads
    lengths = kept.sum(1)
    places = torch.arange(int(lengths.max()), device=kept.device)
    inside = places < lengths[:, None]
    starts = lengths.cumsum(0) - lengths
    keep = predicts[kept].nonzero()[:, 0]
    return {
        "input_ids": input_ids[kept][None],
        "position_ids": (kept.cumsum(1) - 1)[kept][None],
        "logits_to_keep": keep,
        "predicts": keep,
        "spread": torch.where(inside, starts[:, None] + places, 0),
        "gather": inside.flatten().nonzero()[:, 0],
    }


def score(model: Any, row: dict[str, Tensor], targets: Tensor, temperature: float = 1.0) -> Scored:
    """Return the scores of `targets` (K) at the places of a packed row that predict them."""
    logits = model(**row, use_cache=False).logits[0].float() / temperature
    log_probs = log_softmax(logits, -1)
    chosen = log_probs.gather(1, targets[:, None])[:, 0]
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
    return Scored(chosen, entropy, logits)


def answer_packed(model: Any, temperature: float = 1.0) -> None:
    """Make a causal language model that attends packed answer `fused_lm_head=True` from a packed row.

    Call it after the trainer's constructor, which gives the model TRL's own answer. A caller that has laid out its
    batch gives it as `row`, the places that are read in the order of the labels.
    """
    plain = type(model).forward

    @functools.wraps(plain)  # `generate` checks its arguments against the signature
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **given: Any) -> Any:
        if not fused_lm_head:
            return plain(self, *args, **given)
        labels = given["labels"]
        mask = labels[:, 1:] != IGNORED
        row = given.get("row") or rows_of(given["input_ids"], given["attention_mask"], mask)
        made = score(functools.partial(plain, self), row, labels[:, 1:][mask], temperature)

        def placed(values: Tensor) -> Tensor:
            return values.new_zeros(mask.shape).masked_scatter(mask, values)

        top = made.logits.argmax(-1) == labels[:, 1:][mask]
        return FusedCausalLMOutput(
            loss=-made.log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=placed(made.log_probs),
            entropy=placed(made.entropy),
            mean_logits=placed(made.logits.detach().mean(-1)),
            is_top1=placed(top),
            label_mask=mask,
        )

    model.forward = types.MethodType(forward, model)
