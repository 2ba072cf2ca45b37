"""Answers in batches, greedy or drawn: left padding, a KV cache, rows that have ended leave the batch.

The loop is our own: it asks the model for the last position's logits and nothing else, so that a small model is not
held up by what `generate` prepares for every token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache


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
        noise = torch.empty_like(log_probs).exponential_(generator=self.generator)
        tokens = (log_probs - noise.log()).argmax(-1)  # the Gumbel trick: as drawn from softmax
        return tokens, log_probs.gather(1, tokens[:, None])[:, 0]


def answer_all(model: Any, jobs: Sequence[Job], batch_size: int, told: Callable[[int], None]) -> list[list[int]]:
    """Return the greedy continuation of each prompt, its stop token included; `told` hears how many are done."""
    return [answer.ids for answer in drawn_all(model, jobs, batch_size, told)]


@torch.inference_mode()
def drawn_all(
    model: Any, jobs: Sequence[Job], batch_size: int, told: Callable[[int], None], draw: Draw | None = None
) -> list[Answer]:
    """Return a continuation of each prompt: drawn by `draw`, or the greedy one."""
    order = sorted(range(len(jobs)), key=lambda i: len(jobs[i].ids))
    answers = [Answer() for _ in jobs]
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        Batch(model, [jobs[i] for i in batch], [answers[i] for i in batch], draw).run()
        told(first + len(batch))
    return answers


class Batch:
    """Prompts that are answered together."""

    def __init__(self, model: Any, jobs: list[Job], answers: list[Answer], draw: Draw | None = None) -> None:
        """Pad on the left, so that every row's next token comes at the same place; `answers` are filled in place."""
        width = max(len(job.ids) for job in jobs)
        padded = [[0] * (width - len(job.ids)) + job.ids for job in jobs]
        seen = [[0] * (width - len(job.ids)) + [1] * len(job.ids) for job in jobs]
        self.model, self.jobs, self.answers, self.draw = model, jobs, answers, draw
        self.ids = torch.tensor(padded, device=model.device)
        self.seen = torch.tensor(seen, device=model.device)
        self.places = (self.seen.cumsum(1) - 1).clamp(min=0)
        self.cache = DynamicCache(config=model.config)

    def run(self) -> None:
        """Make a token for every row that has not ended, until none is left."""
        alive = list(range(len(self.jobs)))
        while alive:
            going = [row for row, next_one in enumerate(self.next_tokens()) if self.goes_on(alive[row], *next_one)]
            if going and len(going) < len(alive):
                self.keep(going)
            alive = [alive[row] for row in going]
            if alive:
                self.extend([self.answers[number].ids[-1] for number in alive])

    def goes_on(self, number: int, token: int, log_prob: float | None) -> bool:
        """Take the token of a row; tell whether its answer is not at an end."""
        answer, job = self.answers[number], self.jobs[number]
        answer.ids.append(token)
        if log_prob is not None:
            answer.log_probs.append(log_prob)
        return len(answer.ids) < job.limit and not job.ended(answer.ids)

    def next_tokens(self) -> list[tuple[int, float | None]]:
        """Read what is new and return the next token of each row, with its log-probability where it is drawn."""
        made = self.model(
            input_ids=self.ids, attention_mask=self.seen, position_ids=self.places, past_key_values=self.cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        logits = made.logits[:, -1]
        if self.draw is None:
            return [(token, None) for token in logits.argmax(-1).tolist()]
        tokens, log_probs = self.draw(logits)
        return list(zip(tokens.tolist(), log_probs.tolist(), strict=True))

    def keep(self, rows: list[int]) -> None:
        """Let the other rows go."""
        kept = torch.tensor(rows, device=self.ids.device)
        self.cache.batch_select_indices(kept)
        self.seen, self.places = self.seen[kept], self.places[kept]

    def extend(self, tokens: list[int]) -> None:
        """Take one more token of each row."""
        self.ids = torch.tensor(tokens, device=self.seen.device)[:, None]
        self.seen = torch.cat([self.seen, torch.ones_like(self.seen[:, :1])], 1)
        self.places = self.places[:, -1:] + 1
