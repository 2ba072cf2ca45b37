"""Whole conversations end to end in one row, each blind to the others.

Everything but attention runs on one row without a padding token. For attention each conversation is given a row of
its own, where plain causal attention cannot see another one: no quadratic mask over the packed row, no leak to prove
away, and the same kernel on a CPU and a GPU.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from containers.formats import Rendered

ATTENTION = "packed"
SHORT = 256
"""Tokens of the longest conversation up to which a CPU attends by batched products: torch's fused kernel takes 1.2
(fp32) to 5 (bf16) times as long on such rows."""


def lay_out(lessons: Sequence[Rendered]) -> dict[str, torch.Tensor]:
    """Return one packed row of T tokens, n conversations (each up to its last prediction) and K trained tokens.

    `input_ids`, `position_ids` (1, T); `logits_to_keep` and `predicts` (K): the places that predict a trained token,
    for the head and for the last layer; `targets` (K);
    `spread` (n, longest): the place in the row of each conversation's tokens (0 beyond its end, never looked at);
    `gather` (T): the way back.
    """
    lengths = [reach(lesson) for lesson in lessons]
    starts = np.cumsum([0, *lengths[:-1]])
    trained = [lesson.trained[1 : n + 1] for lesson, n in zip(lessons, lengths, strict=True)]
    keep = np.flatnonzero(np.concatenate(trained))
    following = np.concatenate([lesson.ids[1 : n + 1] for lesson, n in zip(lessons, lengths, strict=True)])
    columns = np.arange(max(lengths))
    inside = columns < np.array(lengths)[:, None]
    row = {
        "input_ids": np.concatenate([lesson.ids[:n] for lesson, n in zip(lessons, lengths, strict=True)])[None],
        "position_ids": np.concatenate([np.arange(n) for n in lengths])[None],
        "logits_to_keep": keep,
        "predicts": keep,
        "targets": following[keep],
        "spread": np.where(inside, starts[:, None] + columns, 0),
        "gather": np.flatnonzero(inside),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.int64)) for name, value in row.items()}


def reach(lesson: Rendered) -> int:
    """Return how many tokens lead to the last trained one: what comes after them, nothing is learnt from."""
    return len(lesson.trained) - 1 - lesson.trained[::-1].index(True)


def packed_attention(
    module: torch.nn.Module,
    *tensors: torch.Tensor | None,
    spread: torch.Tensor | None = None,
    gather: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention (1, T, heads, width) within each conversation of a packed row.

    `tensors`: query (1, heads, T, width), key and value (1, groups, T, width), and a mask (None for a packed row). A
    row that is not packed (no `spread`) is attended to as transformers does.
    """
    query, key, value, mask = tensors
    if spread is None or gather is None:
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    def rows(x: torch.Tensor) -> torch.Tensor:
        flat = x[0].transpose(0, 1).index_select(0, spread.flatten())
        return flat.unflatten(0, spread.shape).transpose(1, 2)

    dropout, scale = options.get("dropout", 0.0), options.get("scaling") or query.shape[-1] ** -0.5
    if query.device.type == "cpu" and spread.shape[1] <= SHORT and not dropout:
        attended = short_attention(rows(query), rows(key), rows(value), scale)
    else:
        attended = scaled_dot_product_attention(
            rows(query),
            rows(key),
            rows(value),
            is_causal=True,
            dropout_p=dropout,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return attended.transpose(1, 2).flatten(0, 1).index_select(0, gather)[None], None


def short_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Return causal attention (n, heads, length, width) by two batched products, in the values' precision.

    `key` and `value` (n, groups, length, width) are shared by the heads of a group.
    """
    heads, length = query.shape[1], query.shape[2]

    def each_head(x: torch.Tensor) -> torch.Tensor:
        return x.to(value.dtype)[:, :, None].expand(-1, -1, heads // x.shape[1], -1, -1).flatten(0, 2)

    with torch.autocast(query.device.type, enabled=False):
        q, k, v = map(each_head, (query, key, value))
        future = q.new_full((length, length), -torch.inf).triu(1)
        shares = torch.baddbmm(future, q, k.mT, alpha=scale).softmax(-1)
        return torch.bmm(shares, v).unflatten(0, (-1, heads))


def padding_mask(*sizes: Any, attention_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor | None:
    """Return the mask of a padded batch, as in generation; none for a packed row, which needs none.

    An attention that registers no mask gets none at all, and padding would be attended to.
    """
    return None if attention_mask is None else sdpa_mask(*sizes, attention_mask=attention_mask, **options)


def attend_packed(model: Any, max_length: int) -> None:
    """Make `model` use packed attention; raises ValueError for one whose layers see less than `max_length` tokens."""
    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, padding_mask)
    model.set_attn_implementation(ATTENTION)
    window = getattr(model.config, "sliding_window", None)
    if window and getattr(model.config, "use_sliding_window", True) and window < max_length:
        raise ValueError(f"attention window of {window} tokens; max_length {max_length} is more")


class Narrowing:
    """Runs the last layer's feed-forward only where a trained token is predicted: nothing reads the other places.

    A sixth of a four-layer model's work where a third of the tokens is trained; less in a deep one.
    """

    def __init__(self, model: Any) -> None:
        """Hook the last decoder layer of a Llama-like causal language model."""
        self.places: torch.Tensor | None = None
        last = model.model.layers[-1]
        last.register_forward_pre_hook(self.note, with_kwargs=True)
        last.mlp.register_forward_pre_hook(self.narrow)
        last.mlp.register_forward_hook(self.widen)

    def note(self, _: torch.nn.Module, __: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Remember the places of this row; none for a row that is not packed."""
        self.places = given.get("predicts")

    def narrow(self, _: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Keep the rows that predict."""
        if self.places is None:
            return given
        self.length = given[0].shape[1]
        return (given[0].index_select(1, self.places),)

    def widen(self, _: torch.nn.Module, __: Any, made: torch.Tensor) -> torch.Tensor:
        """Put them back in their places."""
        if self.places is None:
            return made
        return made.new_zeros(1, self.length, made.shape[2]).index_copy(1, self.places, made)
