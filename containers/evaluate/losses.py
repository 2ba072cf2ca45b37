"""Losses on held-out sets: bits per byte and perplexity of text, cross-entropy of good answers, which is likelier."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from containers.contract import Dataset
from containers.evaluate.contract import EvaluateConfig
from containers.evaluate.intervals import Bootstrap
from containers.evaluate.likelihood import nats_of
from containers.evaluate.questions import held_out, sampled
from containers.formats import ChatFormat, Message, Rendered, rows_of
from containers.out import Out

Score = dict[str, Any]


def text_losses(model: Any, chat: ChatFormat, corpus: Dataset, config: EvaluateConfig, out: Out) -> list[Score]:
    """Return bits per byte and perplexity of documents, each read alone; its first token is given, not predicted.

    Bits per byte do not depend on the vocabulary; perplexity (per token) does. Rows of the bootstrap are documents.
    """
    texts: list[str] = []

    def read(row: dict[str, Any]) -> Rendered:
        texts.append(row["text"])
        ids = chat.encode(row["text"])
        return Rendered(ids, [True] * len(ids))

    rows = list(drawn(corpus, "text", read, config))
    # A token of a byte-level BPE is spelt with one character per byte.
    given = [len(chat.tokenizer.id_to_token(row.ids[0])) if row.ids else 0 for row in rows]
    sizes = np.array([len(text.encode()) for text in texts]) - np.array(given)
    nats, counts = nats_of(model, rows, lambda done: out.progress(done, len(rows), "documents"))
    bootstrap = Bootstrap(config.resamples, config.seed)
    bits = bootstrap.ratio("bits_per_byte", nats / math.log(2), sizes)
    loss = bootstrap.ratio("perplexity", nats, counts)
    return [bits, {**loss, **{name: math.exp(loss[name]) for name in ("value", "low", "high")}}]


def answer_loss(model: Any, chat: ChatFormat, lessons: Dataset, config: EvaluateConfig, out: Out) -> list[Score]:
    """Return the mean nats per token of the assistant's turns in held-out conversations."""
    rows = list(drawn(lessons, "messages", lambda row: chat.render(row["messages"]), config))
    nats, counts = nats_of(model, rows, lambda done: out.progress(done, len(rows), "conversations"))
    return [Bootstrap(config.resamples, config.seed).ratio("answer_loss", nats, counts)]


def pair_accuracy(model: Any, chat: ChatFormat, pairs: Dataset, config: EvaluateConfig, out: Out) -> list[Score]:
    """Return the share of held-out pairs whose better answer is the likelier one, per token; pairs of equals left out.

    Per token, since a sum would call every short answer likely.
    """
    rows = sampled(pairs, held_out(pairs), config.max_items, config.seed)
    rows = [row for row in rows if row["chosen"] != row["rejected"]]
    if not rows:
        return []
    answers = [answer_in(row["prompt"], row[side], chat) for side in ("chosen", "rejected") for row in rows]
    nats, counts = nats_of(model, answers, lambda done: out.progress(done, len(answers), "answers"))
    chosen, rejected = np.split(nats / np.maximum(counts, 1), 2)
    return [Bootstrap(config.resamples, config.seed).mean("pair_accuracy", (chosen < rejected).tolist())]


def answer_in(prompt: list[Message], answer: list[Message], chat: ChatFormat) -> Rendered:
    """Return a conversation of which the last answer alone counts."""
    whole = chat.render([*prompt, *answer])
    begun = len(chat.render(prompt, open_turn=True).ids)
    return Rendered(whole.ids, [False] * begun + whole.trained[begun:])


def drawn(
    dataset: Dataset, column: str, read: Callable[[dict[str, Any]], Rendered], config: EvaluateConfig
) -> Iterator[Rendered]:
    """Yield held-out rows in an order drawn by the seed until they hold `max_tokens` tokens."""
    table = rows_of(dataset, held_out(dataset)).select([column])
    order = list(range(len(table)))
    random.Random(config.seed).shuffle(order)
    room = config.max_tokens
    for number in order:
        if room <= 0:
            return
        row = read(table.slice(number, 1).to_pylist()[0])
        room -= len(row.ids)
        yield row
