"""Pairs end to end in one row without a padding token, the prompt of each pair computed once for both its answers.

Outside attention a token is a token, wherever it lies. For attention each answer is given a row of its own with its
prompt before it (`containers.packing.packed_attention`): the prompt's keys and values stand in both rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from containers.pairs.rows import Pair

Row = dict[str, Tensor]
"""A packed row of T tokens: `input_ids`, `position_ids` (1, T), `spread`, `gather`, and the places K that are read:
`logits_to_keep` (K), in the order of all chosen answers, then all rejected ones; `predicts`, the same, sorted, once."""


def scored_row(pairs: Sequence[Pair]) -> Row:
    """Return the row whose read places are the last token of each answer: K = 2 x pairs."""
    return row_of(pairs, [[[len(answer.ids)] for answer in pair.answers] for pair in pairs])


def predicted_row(pairs: Sequence[Pair]) -> Row:
    """Return the row whose read places predict the trained tokens of each answer."""
    return row_of(pairs, [[np.flatnonzero(answer.trained).tolist() for answer in pair.answers] for pair in pairs])


def row_of(pairs: Sequence[Pair], read: Sequence[Sequence[Sequence[int]]]) -> Row:
    """Lay out `pairs`; `read` (pair, side): places, where 0 is the prompt's last token and n the answer's n-th.

    What comes after an answer's last read place is left out.
    """
    ids: list[int] = []
    positions, spread, gather = [], [], []
    kept: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    longest = max(len(pair.prompt) + max(map(max, places)) for pair, places in zip(pairs, read, strict=True))
    for pair, places in zip(pairs, read, strict=True):
        prompt = len(ids) + np.arange(len(pair.prompt))
        ids += pair.prompt
        for side, answer in enumerate(pair.answers):
            told = answer.ids[: max(places[side])]
            whole = np.concatenate([prompt, len(ids) + np.arange(len(told))])
            ids += told
            new = np.arange(len(prompt) if side else 0, len(whole))  # the prompt's tokens come back from the first row
            gather.append(len(spread) * longest + new)
            positions.append(new)
            spread.append(np.pad(whole, (0, longest - len(whole))))
            kept[side].append(whole[len(prompt) - 1 + np.asarray(places[side], dtype=np.int64)])
    keep = np.concatenate([*kept[0], *kept[1]])
    row = {
        "input_ids": np.array(ids)[None],
        "position_ids": np.concatenate(positions)[None],
        "spread": np.stack(spread),
        "gather": np.concatenate(gather),
        "logits_to_keep": keep,
        "predicts": np.unique(keep),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.int64)) for name, value in row.items()}


def filled(pairs: Sequence[Pair], budget: int) -> Iterator[list[Pair]]:
    """Yield `pairs`, in their order, in lots of at most `budget` tokens (a longer pair alone)."""
    lot: list[Pair] = []
    for pair in pairs:
        if lot and sum(p.tokens for p in lot) + pair.tokens > budget:
            yield lot
            lot = []
        lot.append(pair)
    if lot:
        yield lot


def moved(row: Row, device: torch.device) -> Row:
    """Return the row on `device`."""
    return {name: value.to(device) for name, value in row.items()}
