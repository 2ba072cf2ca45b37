"""What training is judged by: bits per byte on unseen text, and the answer to one prompt."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import GenerationConfig

from containers.contract import StageError
from containers.formats import ChatFormat
from containers.pretrain.engine import Engine
from containers.pretrain.packing import IGNORED, Batch, Rows

ANSWER_TOKENS = 48


@dataclass(frozen=True)
class Yardstick:
    """The same validation batches every time, and the bytes of text that they predict.

    Bits per byte = nats of all text targets / (ln 2 x their bytes). It does not depend on the vocabulary. The first
    token of a document and the end token are not counted: nothing predicts the one, the other is no text.
    """

    batches: tuple[Batch, ...]
    text_bytes: int

    @classmethod
    def of(cls, rows: Rows, max_tokens: int, micro_batch_size: int, chat: ChatFormat) -> "Yardstick":
        """Take any rows (packing has sorted them by length) until `max_tokens` positions."""
        count = min(len(rows), max(1, max_tokens // rows.length))
        chosen = np.random.default_rng(0).permutation(len(rows))[:count]
        widths = byte_lengths(chat)
        control = np.array(sorted(chat.control_ids))
        batches, size = [], 0
        for first in range(0, count, micro_batch_size):
            batch = rows.take(chosen[first : first + micro_batch_size], micro_batch_size)
            targets = batch.targets.numpy()
            targets[np.isin(targets, control)] = IGNORED
            size += int(widths[targets[targets != IGNORED]].sum())
            batches.append(replace(batch, targets=torch.from_numpy(targets)))
        return cls(tuple(batches), max(1, size))

    def bits_per_byte(self, engine: Engine) -> float:
        """Measure the model as it is now, through the compiled forward pass of training (one graph for both)."""
        nats = sum(float(engine.forward(batch).detach()) for batch in self.batches)
        return nats / (math.log(2) * self.text_bytes)


def byte_lengths(chat: ChatFormat) -> np.ndarray:
    """Return the bytes of text that each token id stands for; raises StageError unless the BPE is byte-level."""
    if "ByteLevel" not in str(chat.tokenizer.decoder):
        raise StageError("the tokenizer is not a byte-level BPE: its bytes cannot be counted, nor can it be served")
    size = chat.tokenizer.get_vocab_size()
    # In the byte-level alphabet each character of a token stands for one byte.
    return np.array([len(chat.tokenizer.id_to_token(i) or "") for i in range(size)])


@torch.no_grad()
def answer(engine: Engine, chat: ChatFormat, prompt: str) -> str:
    """Return the greedy continuation of `prompt` (up to 48 tokens, fewer where the context ends)."""
    ids = chat.encode(prompt)
    room = engine.model.config.max_position_embeddings - len(ids)
    if room < 1:
        raise StageError(f"pretrain.prompt has {len(ids)} tokens: the context of the model holds no more of them")
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=min(ANSWER_TOKENS, room), eos_token_id=list(chat.stop_ids),
        pad_token_id=chat.stop_ids[0],
    )  # fmt: skip
    given = torch.tensor([ids], device=engine.device)
    engine.model.eval()
    made = engine.model.generate(given, attention_mask=torch.ones_like(given), generation_config=settings)
    engine.model.train()
    return chat.decode(made[0, len(ids) :].tolist())
