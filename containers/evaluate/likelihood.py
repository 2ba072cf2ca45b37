"""How surprised a model is by what it reads: nats per row, each row alone in its attention."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from containers.formats import Rendered

LOGITS = 2**27
"""Most logits at once, 512 MiB in fp32: sets how many rows are read together."""


@torch.inference_mode()
def nats_of(model: Any, rows: Sequence[Rendered], told: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
    """Return (nats, counted tokens) of each row over its trained tokens; a row's first token is never counted.

    A row longer than the context is read in windows, each of which opens with the last token of the one before.
    `told` hears how many windows are done. Shapes: both (rows,), float64.
    """
    context = int(model.config.max_position_embeddings)
    windows = [window for number, row in enumerate(rows) for window in windows_of(number, row, context)]
    windows.sort(key=lambda window: -len(window[1].ids))
    nats, counts = np.zeros(len(rows)), np.zeros(len(rows))
    done = 0
    for batch in batches_of(windows, LOGITS // int(model.config.vocab_size)):
        found, counted = nats_of_batch(model, [window for _, window in batch])
        owners = [number for number, _ in batch]
        np.add.at(nats, owners, found)
        np.add.at(counts, owners, counted)
        done += len(batch)
        told(done)
    return nats, counts


def windows_of(number: int, row: Rendered, context: int) -> Iterator[tuple[int, Rendered]]:
    """Yield (row number, window of at most `context` tokens), windows overlapping by the one token that predicts."""
    for first in range(0, max(1, len(row.ids) - 1), context - 1):
        yield number, Rendered(row.ids[first : first + context], row.trained[first : first + context])


def batches_of(windows: list[tuple[int, Rendered]], tokens: int) -> Iterator[list[tuple[int, Rendered]]]:
    """Yield runs of windows, longest first, that fill about `tokens` tokens when padded."""
    while windows:
        count = max(1, tokens // len(windows[0][1].ids))
        yield windows[:count]
        windows = windows[count:]


def nats_of_batch(model: Any, windows: list[Rendered]) -> tuple[np.ndarray, np.ndarray]:
    """Return (nats, counted tokens) of each window; padded on the right, where causal attention never looks."""
    width = max(len(window.ids) for window in windows)
    ids = torch.tensor([window.ids + [0] * (width - len(window.ids)) for window in windows], device=model.device)
    kept = torch.tensor([window.trained[1:] + [False] * (width - len(window.ids)) for window in windows])
    logits = model(ids, use_cache=False).logits[:, :-1].float()
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu().double()
    return (nats * kept).sum(1).numpy(), kept.sum(1).double().numpy()
