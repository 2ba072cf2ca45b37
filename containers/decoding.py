"""A causal language model as generation wants it: fused weights in the working precision, a cache that never moves.

A token of a small model costs more in Python and in calls than in arithmetic, and one of a larger model costs the
reading of its weights. So a Decoder keeps a copy of them with the query, key and value projections (and the two of the
gated feed-forward) in one matrix, on a CPU in the layout that its matrix products want, and runs a layer in a dozen
calls. It knows the shapes that can be trained here (`containers.contract.CONVERTIBLE`), all weights dense; any other
model generates through its own forward pass.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from containers.contract import CONVERTIBLE


class Fused:
    """One or more projections, one below the other, in one precision."""

    def __init__(self, dtype: torch.dtype, *parts: Any) -> None:
        """Copy linear layers of equal input."""
        self.weight = torch.cat([part.weight.detach().to(dtype) for part in parts])
        self.bias = None if parts[0].bias is None else torch.cat([part.bias.detach().to(dtype) for part in parts])
        self.is_packed = self.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        if self.is_packed:  # else oneDNN lays the weights out anew for every token: twice as long for a few rows
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, inside: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        if self.is_packed:
            made: Tensor = torch.ops.mkldnn._linear_pointwise(inside, self.weight, self.bias, "none", [], "")
            return made
        return linear(inside, self.weight, self.bias)


@dataclass
class Layer:
    """Weights of one decoder layer."""

    before_attention: Tensor
    query_key_value: Fused
    query_key_norms: tuple[Tensor, Tensor] | None
    """Qwen3's; None for the others."""
    out: Fused
    before_feed_forward: Tensor
    gate_up: Fused
    down: Fused


class Decoder:
    """A copy of a model's weights to generate with; `take` brings it up to date."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        """Copy a model that `is_known`; matrices in `dtype`, the sums between layers in fp32."""
        config = model.config
        self.device, self.dtype = model.device, dtype
        self.cached = torch.float32 if self.device.type == "cpu" else dtype
        """Of keys and values: a CPU attends to a few tokens five times as fast in fp32 as in bf16."""
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.rotary = model.model.rotary_emb
        self.take(model)

    @staticmethod
    def is_known(model: Any) -> bool:
        """Tell whether a model is of a shape that a Decoder knows, all its weights dense."""
        return type(model).__name__ in CONVERTIBLE and not getattr(model, "is_quantized", False)

    @torch.no_grad()
    def take(self, model: Any) -> None:
        """Copy the weights as they are now."""
        inner = model.model
        self.embedding = inner.embed_tokens.weight.detach()
        self.layers = [self.layer(each) for each in inner.layers]
        self.norm = inner.norm.weight.detach().float()
        self.head = Fused(self.dtype, model.lm_head)

    def layer(self, source: Any) -> Layer:
        """Copy one decoder layer."""
        attention, mlp = source.self_attn, source.mlp
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        return Layer(
            source.input_layernorm.weight.detach().float(),
            Fused(self.dtype, attention.q_proj, attention.k_proj, attention.v_proj),
            (norms[0].weight.detach(), norms[1].weight.detach()) if norms[0] is not None else None,
            Fused(self.dtype, attention.o_proj),
            source.post_attention_layernorm.weight.detach().float(),
            Fused(self.dtype, mlp.gate_proj, mlp.up_proj),
            Fused(self.dtype, mlp.down_proj),
        )


class Reading:
    """What a Decoder has read of a batch: keys and values, in a cache that is laid out once."""

    def __init__(self, decoder: Decoder, capacity: int) -> None:
        """Make room for `capacity` tokens a row."""
        self.decoder, self.capacity, self.length = decoder, capacity, 0
        self.cache: list[Tensor] = []

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named more than once."""
        self.cache = [kept.index_select(1, rows) for kept in self.cache]

    def next_logits(self, ids: Tensor, seen: Tensor | None, places: Tensor) -> Tensor:
        """Read ids (B, S) at `places` (B, S); return the logits after the last one, (B, vocabulary), fp32.

        `seen` (B, tokens so far): 0 where a row is padded; None where none is.
        """
        with torch.autocast(self.decoder.device.type, enabled=False):  # precisions are the Decoder's own affair
            return self.read(ids, seen, places)

    def read(self, ids: Tensor, seen: Tensor | None, places: Tensor) -> Tensor:
        """Do what `next_logits` says."""
        decoder = self.decoder
        states = decoder.embedding[ids].float()
        if not self.cache:
            shape = (2, len(ids), decoder.groups, self.capacity, decoder.width)
            self.cache = [states.new_zeros(shape, dtype=decoder.cached) for _ in decoder.layers]
        turn = tuple(part[:, :, None].to(decoder.cached) for part in decoder.rotary(states, position_ids=places))
        mask = None if seen is None else self.mask_of(seen, ids.shape[1])
        for number, layer in enumerate(decoder.layers):
            states = self.attend(states, layer, self.cache[number], turn, mask)
            inside = rms_norm(states, states.shape[-1:], layer.before_feed_forward, decoder.eps).to(decoder.dtype)
            gate, up = layer.gate_up(inside).chunk(2, -1)
            states = states + layer.down(silu(gate) * up)
        self.length += ids.shape[1]
        last = rms_norm(states[:, -1], states.shape[-1:], decoder.norm, decoder.eps).to(decoder.dtype)
        return decoder.head(last).float()

    def attend(
        self, states: Tensor, layer: Layer, cache: Tensor, turn: tuple[Tensor, ...], mask: Tensor | None
    ) -> Tensor:
        """Return `states` (B, S, width) with what attention adds to them; their keys and values go to the cache."""
        decoder, (rows, count, _) = self.decoder, states.shape
        heads, groups = decoder.heads, decoder.groups
        inside = rms_norm(states, states.shape[-1:], layer.before_attention, decoder.eps).to(decoder.dtype)
        made = layer.query_key_value(inside).view(rows, count, heads + 2 * groups, decoder.width).to(decoder.cached)
        asked = made[:, :, : heads + groups]
        if layer.query_key_norms:
            parts = zip(asked.split((heads, groups), 2), layer.query_key_norms, strict=True)
            asked = torch.cat([rms_norm(x.float(), x.shape[-1:], w.float(), decoder.eps) for x, w in parts], 2)
            asked = asked.to(decoder.cached)
        asked = turned(asked, *turn).transpose(1, 2)
        new = slice(self.length, self.length + count)
        cache[0, :, :, new] = asked[:, heads:]
        cache[1, :, :, new] = made[:, :, heads + groups :].transpose(1, 2)
        found = attended(asked[:, :heads], cache[:, :, :, : new.stop], mask)
        return states + layer.out(found.transpose(1, 2).reshape(rows, count, -1).to(decoder.dtype))

    def mask_of(self, seen: Tensor, count: int) -> Tensor:
        """Return (B, 1, S, tokens): whether each of the last `count` tokens may look at each token so far."""
        mask = seen.bool()[:, None, None]
        if count == 1:
            return mask
        causal = torch.ones(count, seen.shape[1], dtype=torch.bool, device=seen.device).tril(seen.shape[1] - count)
        own = torch.eye(count, seen.shape[1], dtype=torch.bool, device=seen.device)
        return (mask & causal) | own  # a padded place looks at itself: of nothing softmax makes no number


def turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return (B, S, heads, width) with positions turned in (Su et al. 2021, arXiv:2104.09864)."""
    first, second = states.chunk(2, -1)
    return states * cos + torch.cat((-second, first), -1) * sin


def attended(queries: Tensor, cache: Tensor, mask: Tensor | None) -> Tensor:
    """Return attention of queries (B, heads, S, width) over the keys and values of a cache (2, B, groups, T, width)."""
    rows, heads, count, width = queries.shape
    share = heads // cache.shape[2]
    keys, values = cache
    if share > 1 and count == 1:  # the queries of a group as rows of one product: no key is copied
        packed = scaled_dot_product_attention(queries.view(rows, -1, share, width), keys, values, attn_mask=mask)
        return packed.reshape(rows, heads, 1, width)
    if share > 1:
        keys, values = (part.repeat_interleave(share, 1) for part in (keys, values))
    return scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=mask is None and count > 1)
