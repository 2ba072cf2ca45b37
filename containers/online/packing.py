"""Answers end to end in one row without a padding token, a prompt that several of them follow computed once.

Outside attention a token is a token, wherever it lies. For attention each answer is given a row of its own with its
prompt before it (`containers.packing.packed_attention`): the prompt's keys and values stand in every row of its group.
"""

import numpy as np
import torch
from torch import Tensor


def shared_row(input_ids: Tensor, attention_mask: Tensor, scored: Tensor) -> dict[str, Tensor]:
    """Return a padded batch (B, L) as a packed row, as `containers.scoring.rows_of` does, equal prompts laid out once.

    `scored` (B, L - 1): whether the token after each place is scored; what stands up to a row's first such place is its
    prompt. `predicts` names each place once, `logits_to_keep` once for each token that it predicts.
    """
    ids: list[np.ndarray] = []
    positions, spread, gather, keep = [], [], [], []
    known: dict[bytes, np.ndarray] = {}
    laid = 0
    batch = [part.cpu().numpy() for part in (input_ids, attention_mask.bool(), scored)]
    rows = [whole_row(*parts) for parts in zip(*batch, strict=True)]
    longest = max(len(row) for row, _ in rows)
    for row, places in rows:
        count = places[0] + 1
        name = row[:count].tobytes()
        begin = count if name in known else 0
        new = laid + np.arange(len(row) - begin)
        laid += len(new)
        prompt = known.setdefault(name, new[:count])
        whole = np.concatenate([prompt, new]) if begin else new
        own = np.arange(begin, len(row))
        ids.append(row[begin:])
        positions.append(own)
        gather.append(len(spread) * longest + own)
        spread.append(np.pad(whole, (0, longest - len(whole))))
        keep.append(whole[places])
    kept = np.concatenate(keep)
    made = {
        "input_ids": np.concatenate(ids)[None],
        "position_ids": np.concatenate(positions)[None],
        "spread": np.stack(spread),
        "gather": np.concatenate(gather),
        "logits_to_keep": kept,
        "predicts": np.unique(kept),
    }
    return {
        name: torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64)).to(input_ids.device) for name, x in made.items()
    }


def whole_row(ids: np.ndarray, mask: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a row's tokens up to its last scored place, without padding, and its scored places among them."""
    kept = np.flatnonzero(mask)
    places = np.flatnonzero(scored[kept[kept < len(scored)]])
    return ids[kept[: places[-1] + 1]], places
