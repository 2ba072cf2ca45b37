"""Answers in batches, greedy or drawn: left padding, a KV cache, rows that have ended leave the batch.

The loop is our own: it asks the model for the last position's logits and nothing else, so that a small model is not
held up by what `generate` prepares for every token. A model may be a Hugging Face one or a `decoding.Decoder`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from containers.decoding import Decoder, Reading


@dataclass(frozen=True)
class Job:
    """One prompt to continue: at most `limit` tokens, until `ended(tokens made so far)`."""

    ids: list[int]
    limit: int
    ended: Callable[[list[int]], bool]


@dataclass
class Answer:
    """A continuation, its stop token included."""

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    """Of each token under the distribution that it was drawn from; empty for a greedy answer."""


class Draw:
    """Draws tokens at a temperature, the same ones for the same seed on the same machine."""

    def __init__(self, temperature: float, seed: int, device: torch.device | str = "cpu") -> None:
        """`temperature` above 0 divides the logits."""
        self.temperature = temperature
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a token per row of `logits` (B, vocabulary) and its log-probability, both (B)."""
        log_probs = torch.log_softmax(logits.float() / self.temperature, -1)
        below = log_probs.double().exp().cumsum(-1)
        drawn = torch.rand(len(below), 1, generator=self.generator, dtype=below.dtype, device=below.device)
        # One number a row instead of one a token: where it falls in the cumulated probabilities, never on an empty one.
        tokens = torch.searchsorted(below, drawn * below[:, -1:], right=True).clamp(max=below.shape[1] - 1)
        return tokens[:, 0], log_probs.gather(1, tokens)[:, 0]


def answer_all(model: Any, jobs: Sequence[Job], batch_size: int, told: Callable[[int], None]) -> list[list[int]]:
    """Return the greedy continuation of each prompt, its stop token included; `told` hears how many are done."""
    return [answer.ids for answer in drawn_all(model, jobs, batch_size, told)]


@torch.inference_mode()
def drawn_all(
    model: Any, jobs: Sequence[Job], batch_size: int, told: Callable[[int], None], draw: Draw | None = None
) -> list[Answer]:
    """Return a continuation of each prompt: drawn by `draw`, or the greedy one. A Decoder is a model too."""
    order = sorted(range(len(jobs)), key=lambda i: len(jobs[i].ids))
    answers = [Answer() for _ in jobs]
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        Batch(model, [jobs[i] for i in batch], [answers[i] for i in batch], draw).run()
        told(first + len(batch))
    return answers


class Forward:
    """What a model has read of a batch, through its own forward pass; the same methods as `decoding.Reading`."""

    def __init__(self, model: Any) -> None:
        """Begin with nothing read."""
        self.model = model
        self.cache = DynamicCache(config=model.config)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named more than once."""
        self.cache.batch_select_indices(rows)

    def next_logits(self, ids: torch.Tensor, seen: torch.Tensor | None, places: torch.Tensor) -> torch.Tensor:
        """Read ids (B, S) at `places` (B, S); return the logits after the last one, (B, vocabulary)."""
        made = self.model(
            input_ids=ids, attention_mask=seen, position_ids=places, past_key_values=self.cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        logits: torch.Tensor = made.logits[:, -1]
        return logits


class Batch:
    """Prompts that are answered together; one that several answers begin with is read once."""

    def __init__(self, model: Any, jobs: list[Job], answers: list[Answer], draw: Draw | None = None) -> None:
        """Pad on the left, so that every row's next token comes at the same place; `answers` are filled in place."""
        self.jobs, self.answers, self.draw = jobs, answers, draw
        prompts = list(dict.fromkeys(tuple(job.ids) for job in jobs))
        width = max(map(len, prompts))
        padded = [[0] * (width - len(ids)) + list(ids) for ids in prompts]
        seen = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        self.device = model.device
        self.ids = torch.tensor(padded, device=self.device)
        self.seen = None if all(map(all, seen)) else torch.tensor(seen, device=self.device)
        self.places = torch.tensor([[max(0, i - width + len(ids)) for i in range(width)] for ids in prompts])
        self.places = self.places.to(self.device)
        capacity = width + max(job.limit for job in jobs)
        self.read: Any = Reading(model, capacity) if isinstance(model, Decoder) else Forward(model)
        self.rows = [prompts.index(tuple(job.ids)) for job in jobs]

    def run(self) -> None:
        """Make a token for every row that has not ended, until none is left."""
        logits = self.read.next_logits(self.ids, self.seen, self.places)
        alive = list(range(len(self.jobs)))
        if self.rows != list(range(len(logits))):
            logits = logits[self.keep(self.rows)]
        while alive:
            drawn = self.next_tokens(logits)
            going = [row for row, next_one in enumerate(drawn) if self.goes_on(alive[row], *next_one)]
            if going and len(going) < len(alive):
                self.keep(going)
            alive = [alive[row] for row in going]
            if alive:
                self.extend([self.answers[number].ids[-1] for number in alive])
                logits = self.read.next_logits(self.ids, self.seen, self.places)

    def goes_on(self, number: int, token: int, log_prob: float | None) -> bool:
        """Take the token of a row; tell whether its answer is not at an end."""
        answer, job = self.answers[number], self.jobs[number]
        answer.ids.append(token)
        if log_prob is not None:
            answer.log_probs.append(log_prob)
        return len(answer.ids) < job.limit and not job.ended(answer.ids)

    def next_tokens(self, logits: torch.Tensor) -> list[tuple[int, float | None]]:
        """Return the next token of each row, with its log-probability where it is drawn."""
        if self.draw is None:
            return [(token, None) for token in logits.argmax(-1).tolist()]
        tokens, log_probs = self.draw(logits)
        return list(zip(tokens.tolist(), log_probs.tolist(), strict=True))

    def keep(self, rows: list[int]) -> torch.Tensor:
        """Keep these rows, in this order; return them as a tensor."""
        kept = torch.tensor(rows, device=self.device)
        self.read.select(kept)
        self.places = self.places[kept]
        self.seen = None if self.seen is None else self.seen[kept]
        return kept

    def extend(self, tokens: list[int]) -> None:
        """Take one more token of each row."""
        self.ids = torch.tensor(tokens, device=self.device)[:, None]
        if self.seen is not None:
            self.seen = torch.cat([self.seen, torch.ones_like(self.seen[:, :1])], 1)
        self.places = self.places[:, -1:] + 1
