"""Greedy answers in batches: left padding, a KV cache, rows that have ended leave the batch.

The loop is our own: it asks the model for the last position's logits and nothing else, so that a small model is not
held up by what `generate` prepares for every token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache


@dataclass(frozen=True)
class Job:
    """One prompt to continue: at most `limit` tokens, until `ended(tokens made so far)`."""

    ids: list[int]
    limit: int
    ended: Callable[[list[int]], bool]


@torch.inference_mode()
def answer_all(model: Any, jobs: Sequence[Job], batch_size: int, told: Callable[[int], None]) -> list[list[int]]:
    """Return the greedy continuation of each prompt, its stop token included; `told` hears how many are done."""
    order = sorted(range(len(jobs)), key=lambda i: len(jobs[i].ids))
    answers: list[list[int]] = [[] for _ in jobs]
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        Batch(model, [jobs[i] for i in batch], [answers[i] for i in batch]).run()
        told(first + len(batch))
    return answers


class Batch:
    """Prompts that are answered together."""

    def __init__(self, model: Any, jobs: list[Job], answers: list[list[int]]) -> None:
        """Pad on the left, so that every row's next token comes at the same place; `answers` are filled in place."""
        width = max(len(job.ids) for job in jobs)
        padded = [[0] * (width - len(job.ids)) + job.ids for job in jobs]
        seen = [[0] * (width - len(job.ids)) + [1] * len(job.ids) for job in jobs]
        self.model, self.jobs, self.answers = model, jobs, answers
        self.ids = torch.tensor(padded, device=model.device)
        self.seen = torch.tensor(seen, device=model.device)
        self.places = (self.seen.cumsum(1) - 1).clamp(min=0)
        self.cache = DynamicCache(config=model.config)

    def run(self) -> None:
        """Make a token for every row that has not ended, until none is left."""
        alive = list(range(len(self.jobs)))
        while alive:
            going = [
                row for row, (number, token) in enumerate(zip(alive, self.next_tokens(), strict=True))
                if self.goes_on(number, token)
            ]  # fmt: skip
            if going and len(going) < len(alive):
                self.keep(going)
            alive = [alive[row] for row in going]
            if alive:
                self.extend([self.answers[number][-1] for number in alive])

    def goes_on(self, number: int, token: int) -> bool:
        """Take the token of a row; tell whether its answer is not at an end."""
        made, job = self.answers[number], self.jobs[number]
        made.append(token)
        return len(made) < job.limit and not job.ended(made)

    def next_tokens(self) -> list[int]:
        """Read what is new and return the likeliest next token of each row."""
        made = self.model(
            input_ids=self.ids, attention_mask=self.seen, position_ids=self.places, past_key_values=self.cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        tokens: list[int] = made.logits[:, -1].argmax(-1).tolist()
        return tokens

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
