"""Answers of the policy, drawn or greedy, with what training and scoring need to know of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from containers.decoding import Decoder
from containers.formats import Rendered
from containers.generation import Answer, Draw, Job, drawn_all
from containers.models import DTYPES
from containers.policy import Policy
from containers.rlhf.prompts import Prompt, ending_of


@dataclass(frozen=True)
class Rollouts:
    """B answers."""

    prompts: Sequence[Prompt]
    answers: list[Answer]
    ended: Tensor
    """(B) whether each ends with the end-of-turn token."""

    @property
    def lengths(self) -> Tensor:
        """(B) tokens of each answer, its end included."""
        return torch.tensor([len(answer.ids) for answer in self.answers])

    def chats(self) -> list[list[int]]:
        """Return the ids of each prompt with its answer."""
        return [prompt.ids + answer.ids for prompt, answer in zip(self.prompts, self.answers, strict=True)]

    def lessons(self) -> list[Rendered]:
        """Return the same, trained on the answers' tokens."""
        return [
            Rendered(prompt.ids + answer.ids, [False] * len(prompt.ids) + [True] * len(answer.ids))
            for prompt, answer in zip(self.prompts, self.answers, strict=True)
        ]


def roll_out(policy: Policy, prompts: Sequence[Prompt], max_new_tokens: int, draw: Draw | None = None) -> Rollouts:
    """Return an answer to each prompt: drawn by `draw`, or the greedy one."""
    stops, end = frozenset(policy.chat.stop_ids), ending_of(policy.chat)
    jobs = [Job(prompt.ids, max_new_tokens, lambda made: made[-1] in stops) for prompt in prompts]
    training = policy.model.training
    policy.model.eval()
    with policy.autocast():
        answers = drawn_all(speaker_of(policy), jobs, len(jobs), lambda _: None, draw)
    policy.model.train(training)
    return Rollouts(prompts, answers, torch.tensor([answer.ids[-1] == end for answer in answers]))


def speaker_of(policy: Policy) -> Any:
    """Return what answers: a Decoder with the weights as they are now, or the policy itself where none fits."""
    if policy.loaded_as or not Decoder.is_known(policy.model):
        return policy.model
    return Decoder(policy.model, DTYPES[policy.precision])
