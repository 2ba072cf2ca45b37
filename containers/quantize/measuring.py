"""How far a format is from its parent: surprise at held-out text, and the next token it would pick."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from containers.contract import Dataset
from containers.formats import ChatFormat, rows_of
from containers.quantize.config import QuantizeConfig

LOGITS = 2**26
"""Most logits at once, 256 MiB in fp32."""
TOP = 32
"""Likeliest tokens kept at each position: llama.cpp reports as many as it is asked for, at a price for each."""
TINY = 1e-7
"""Least probability of the tokens that are not named: sums of fp32 are no more exact."""
REPLACEMENT = "\ufffd"
"""What bytes that are no whole character are decoded to."""


@dataclass(frozen=True)
class Passage:
    """Held-out tokens that are read alone; the first, and those in `given`, are not counted."""

    ids: list[int]
    given: frozenset[int]

    @cached_property
    def counted(self) -> list[int]:
        """Positions in `ids` of the tokens that are predicted."""
        return [i for i in range(1, len(self.ids)) if self.ids[i] not in self.given]

    @property
    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield (first, last + 1) of each unbroken run of counted positions."""
        counted = set(self.counted)
        firsts = [i for i in self.counted if i - 1 not in counted]
        lasts = [i for i in self.counted if i + 1 not in counted]
        yield from ((first, last + 1) for first, last in zip(firsts, lasts, strict=True))


@dataclass(frozen=True)
class Reading:
    """What a model makes of passages: at each counted token its surprise, and the tokens that it held likeliest."""

    nats: np.ndarray
    """Shape (tokens,)."""
    top: np.ndarray
    """Ids of the likeliest tokens, the first one first, shape (tokens, TOP), fewer for a smaller vocabulary."""
    logs: np.ndarray
    """Their log-probabilities, in nats."""

    @classmethod
    def joined(cls, readings: Iterable["Reading"]) -> "Reading":
        """Return readings end to end."""
        found = list(readings)
        return cls(*(np.concatenate([getattr(r, name) for r in found]) for name in ("nats", "top", "logs")))

    @property
    def perplexity(self) -> float:
        """Exponential of the mean surprise, per token."""
        return math.exp(self.nats.mean())

    def agreement(self, other: "Reading") -> float:
        """Return the share of positions at which both pick the same next token."""
        return float((self.top[:, 0] == other.top[:, 0]).mean())

    def divergence_from(self, parent: "Reading") -> float:
        """Return the mean KL divergence from the parent, KL(parent || this), in nats per token: a lower bound.

        Tokens among the likeliest of both count one by one, all others together; divergence over merged outcomes never
        exceeds the whole one (Cover and Thomas, Elements of Information Theory, 2006, section 2.5).
        """
        return float(np.mean([divergence(*pair) for pair in zip(parent.shares(), self.shares(), strict=True)]))

    def shares(self) -> Iterator[dict[int, float]]:
        """Yield the probability of each of the likeliest tokens, position by position."""
        for ids, logs in zip(self.top.tolist(), np.exp(self.logs).tolist(), strict=True):
            yield dict(zip(ids, logs, strict=True))


def divergence(parent: dict[int, float], child: dict[int, float]) -> float:
    """Return KL(parent || child) in nats over the tokens that both name, and the rest as one."""
    shared = [token for token in parent if token in child]
    known = [[max(shares[token], TINY) for token in shared] for shares in (parent, child)]
    p, q = (np.array([*part, max(1 - sum(part), TINY)]) for part in known)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def passages_of(dataset: Dataset, chat: ChatFormat, context: int, config: QuantizeConfig) -> list[Passage]:
    """Return held-out documents (or conversations), in pieces of at most `context`, about `max_tokens` in all."""
    split = next((name for name in ("test", "validation", "train") if dataset.rows.get(name)), "test")
    rows = rows_of(dataset, split)  # type: ignore[arg-type]
    order = list(range(len(rows)))
    random.Random(config.seed).shuffle(order)
    given = given_tokens(chat)
    passages: list[Passage] = []
    room = config.max_tokens
    for number in order:
        row = rows.slice(number, 1).to_pylist()[0]
        ids = chat.encode(row["text"]) if dataset.role == "corpus" else chat.render(row["messages"]).ids
        for start in range(0, len(ids), context):
            passage = Passage(ids[start : start + min(context, max(room, 0))], given)
            if passage.counted:
                passages.append(passage)
                room -= len(passage.ids)
        if room <= 0:
            break
    return sorted(passages, key=lambda passage: len(passage.ids))


def given_tokens(chat: ChatFormat) -> frozenset[int]:
    """Return the ids that are read but not counted: control tokens, parts of a character, and a leading NUL.

    llama.cpp ends an answer at some of the first and lets no grammar produce the others.
    """
    texts = chat.tokenizer.decode_batch([[i] for i in range(chat.tokenizer.get_vocab_size())])
    odd = {i for i, text in enumerate(texts) if text.startswith("\0") or REPLACEMENT in text}
    return chat.control_ids | set(chat.stop_ids) | odd


@torch.inference_mode()
def read(model: Any, passages: Sequence[Passage]) -> Reading:
    """Return what a causal language model of transformers makes of passages (sorted by length)."""
    readings = []
    start = 0
    while start < len(passages):
        size = max(1, LOGITS // int(model.config.vocab_size) // len(passages[start].ids))
        batch = passages[start : start + size]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(p.ids) for p in batch], batch_first=True)
        # Padding is on the right, where causal attention never looks.
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].float().cpu()
        nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").double()
        likely = logits.topk(min(TOP, logits.shape[-1]))
        logs = likely.values - logits.logsumexp(-1, keepdim=True)
        for i, passage in enumerate(batch):
            places = torch.tensor(passage.counted) - 1
            found = (part[i, places].numpy() for part in (nats, likely.indices, logs))
            readings.append(Reading(*found))
        start += size
    return Reading.joined(readings)
