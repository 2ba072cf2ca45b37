"""A model that answers conversations: rendered, in batches, decoded; greedy, or drawn at a temperature."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch

from containers.contract import Model
from containers.formats import ChatFormat, Message
from containers.generation import Draw, Job, drawn_all
from containers.models import device_for, load_model, working_precision
from containers.out import Out
from containers.speaking import Reply, SpeakingConfig

Conversation = Sequence[Message]
Told = Callable[[int], None]
"""Hears how many answers are done."""


class Voice:
    """A model and the format of its chats."""

    def __init__(self, model: Any, chat: ChatFormat, batch_size: int) -> None:
        """`model` is a causal language model in eval mode; `batch_size` answers are made at once."""
        self.model, self.chat, self.batch_size = model, chat, batch_size
        self.context = int(model.config.max_position_embeddings)

    @classmethod
    def load(cls, source: Model, config: SpeakingConfig, out: Out) -> Self:
        """Load `source` and fix threads and algorithms; raises StageError as `check_model` does."""
        torch.set_num_threads(config.threads)
        device = device_for(config.device)
        torch.use_deterministic_algorithms(device.type == "cpu")
        precision, why = working_precision(config.precision, device)
        if why:
            out.say(why)
        return cls(load_model(source, precision, device=device), ChatFormat.load(source.path), config.batch_size)

    def draw(self, temperature: float, seed: int) -> Draw | None:
        """Return what draws tokens at `temperature`; None, which is greedy, at 0."""
        return Draw(temperature, seed, self.model.device) if temperature else None

    def answer(
        self, conversations: Sequence[Conversation], max_tokens: int, told: Told, draw: Draw | None = None
    ) -> list[Reply | None]:
        """Return a reply to each conversation, None to one that fills the context by itself."""
        prompts = [self.chat.render(turns, open_turn=True).ids for turns in conversations]
        fitting = [number for number, ids in enumerate(prompts) if len(ids) < self.context]
        jobs = [
            Job(
                prompts[n], min(max_tokens, self.context - len(prompts[n])), lambda made: made[-1] in self.chat.stop_ids
            )
            for n in fitting
        ]
        replies: list[Reply | None] = [None] * len(prompts)
        for number, made in zip(fitting, drawn_all(self.model, jobs, self.batch_size, told, draw), strict=True):
            finished = made.ids[-1] in self.chat.stop_ids
            text = self.chat.decode(made.ids[:-1] if finished else made.ids)
            replies[number] = Reply(text.strip(), finished)
        return replies
