"""The proof that a bundle answers as its 16-bit model does: its own app, in this process, asked the reference's chats.

A gguf answers in llama.cpp, safetensors in transformers. Compared are the tokens of each chat, the greedy answer, and
how likely each token of the reference's answer is here.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from containers.contract import Frozen, StageError
from containers.package.contract import PackageConfig
from containers.reference import Exchange, Reference
from containers.serve.bundle import MODEL, Served
from containers.serve.contract import ServeConfig
from containers.serve.desk import Desk, Place
from containers.serve.jobs import Job
from containers.serve.requests import ChatRequest

SIXTEEN_BITS = ("f16", "bf16", "fp16")
COIN_TOSS, COIN_TOSS_IN_BF16 = 0.05, 0.25
"""Nats: where the reference's two best tokens are closer than this, either is the likeliest after rounding.

transformers computes in bf16, where logits from 16 to 32 are 0.125 apart.
"""
MAX_CONTEXT = 1024
Told = Callable[[float, float, str], None]


class Compared(NamedTuple):
    """One exchange here and in the reference."""

    equal: bool
    """Greedy answers, up to a coin toss."""
    nats: list[float]
    """|difference| of the log-probability of each token that was compared."""


class Proof(Frozen):
    """What was compared and how far apart it is."""

    chats: int
    """All of them of equal token ids, or the bundle is refused."""
    ids_as_transformers: int
    """Chats of which `apply_chat_template` makes these token ids too."""
    engine: str
    """What answered."""
    answers_equal: int
    """Greedy answers that are the same, token by token, up to where the reference itself is at a coin toss."""
    tokens: int
    """Tokens whose log-probabilities were compared."""
    mean_nats: float
    max_nats: float
    allowed_mean_nats: float


def prove(src: Path, parent: str, config: PackageConfig, told: Told) -> dict[str, Proof]:
    """Return how each model of the bundle in `src`, by its name, compares with its answers in transformers.

    `parent` is the digest of the model that the weights were made of; `told` hears of progress. Raises StageError for
    another model's answers, for other token ids, for 16 bits that answer otherwise, and for a mean beyond the bound.
    """
    served = Served.open(src)
    references = {name: Reference.read(src / model.reference) for name, model in served.manifest.models.items()}
    for reference in references.values():
        check(reference, parent, served)
    figures = measured(src, references, config, told)
    return {
        name: Proof(
            chats=len(reference.exchanges),
            ids_as_transformers=sum(exchange.as_transformers for exchange in reference.exchanges),
            **figures[name],
        )
        for name, reference in references.items()
    }


def check(reference: Reference, parent: str, served: Served) -> None:
    """Raise StageError for the answers of another model, for none, and for chats of other token ids."""
    if reference.parent != parent:
        raise StageError(
            f"the reference beside the weights is of the model {reference.parent[:12]}, and they were made of "
            f"{parent[:12]}: quantize it again"
        )
    if not reference.exchanges:
        raise StageError(
            f"{served.folder / MODEL} brings no answers to compare with: pack it with `package.prove_parity=false`"
        )
    for exchange in reference.exchanges:
        check_ids(served.chat.render(exchange.messages, open_turn=True).ids, exchange)


def measured(
    src: Path, references: dict[str, Reference], config: PackageConfig, told: Told
) -> dict[str, dict[str, Any]]:
    """Return the figures of each model of the bundle in `src`, by its name; raises StageError as `prove` says."""
    exchanges = [exchange for reference in references.values() for exchange in reference.exchanges]
    context = max(MAX_CONTEXT, *(len(exchange.ids) + len(exchange.answer) for exchange in exchanges))
    desk = Desk(src, Place(ServeConfig(authentication="none", slots=1, context=context, max_tokens=context)))
    compared: dict[str, list[Compared]] = {name: [] for name in references}
    try:
        for name, reference in references.items():
            for exchange in reference.exchanges:
                compared[name].append(compare(desk, name, exchange))
                told(sum(map(len, compared.values())), len(exchanges), "chats")
    finally:
        desk.engine.close()
    return {name: figures_of(desk, compared[name], reference, config) for name, reference in references.items()}


def figures_of(desk: Desk, compared: list[Compared], reference: Reference, config: PackageConfig) -> dict[str, Any]:
    """Return how far one model is from its reference; raises StageError where that is too far."""
    strict = is_strict(desk.served.manifest.format, reference)
    allowed = config.max_parity_nats_16bit if strict else config.max_parity_nats
    nats = [value for one in compared for value in one.nats] or [0.0]
    answers, mean = sum(one.equal for one in compared), fmean(nats)
    if strict and answers < len(compared):
        wrong = next(e for e, one in zip(reference.exchanges, compared, strict=True) if not one.equal)
        raise StageError(
            f"the bundle answers {wrong.messages[-1]['content']!r} otherwise than its 16-bit model in transformers, "
            "and nothing was rounded: quantize it again, and tell us"
        )
    if mean > allowed:
        raise StageError(
            f"log-probabilities of the bundle are {mean:.3f} nats from its 16-bit model's on average, allowed are "
            f"{allowed:g}: ship a finer format (`quantize.ship`), or raise the bound"
        )
    figures = {"mean_nats": round(mean, 5), "max_nats": round(max(nats), 5), "allowed_mean_nats": allowed}
    engine = "llama.cpp" if desk.served.gguf else "transformers"
    return {"engine": engine, "answers_equal": answers, "tokens": len(nats), **figures}


def is_strict(format: str, reference: Reference) -> bool:
    """Whether a format must answer token by token as the reference: the weights of neither are rounded."""
    return format in SIXTEEN_BITS and reference.precision == "fp32"


def check_ids(found: list[int], exchange: Exchange) -> None:
    """Raise StageError for other tokens than the 16-bit model was given."""
    if found != list(exchange.ids):
        raise StageError(
            f"the bundle makes other tokens of {exchange.messages[-1]['content']!r} than its 16-bit model was given "
            f"({found} instead of {list(exchange.ids)}): tokenizer or template are not the model's"
        )


def compare(desk: Desk, name: str, exchange: Exchange) -> Compared:
    """Ask a model of the bundle one chat; raises StageError where its tokens are not the reference's."""
    limit = len(exchange.answer)
    asked = {"messages": exchange.messages, "max_tokens": limit, "temperature": 0, "logprobs": True}
    request = ChatRequest.model_validate({"model": name, **asked})
    prompts = desk.prompts(request)
    check_ids(prompts[0], exchange)
    job = desk.jobs(request, prompts)[0]
    said, _ = asyncio.run(answered(desk, job))
    return Compared(same(desk, said, exchange), distances(desk, exchange, job.adapters))


def same(desk: Desk, said: list[int], exchange: Exchange) -> bool:
    """Whether an answer is the reference's up to its end, or left it where the reference itself was at a coin toss.

    llama.cpp does not tell of tokens that are part of a character, nor of the stop token: they are left out on both
    sides, but a coin toss at one of them counts.
    """
    toss = COIN_TOSS if desk.served.gguf else COIN_TOSS_IN_BF16
    found = [token for token in said if not is_odd(desk, token)]
    wanted: list[int] = []
    margins: list[float] = []
    close = toss
    for token, margin in zip(exchange.answer, exchange.margins, strict=True):
        close = min(close, margin)
        if not is_odd(desk, token):
            wanted.append(token)
            margins.append(close)
            close = toss
    if found == wanted:
        return True
    pairs = zip(found, wanted, strict=False)
    apart = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(wanted)))
    return [*margins, close][apart] < toss


def distances(desk: Desk, exchange: Exchange, adapters: tuple[str, ...]) -> list[float]:
    """Return |difference| in nats of each token of the reference's answer, up to one that no grammar can produce."""
    plain = next((i for i, token in enumerate(exchange.answer) if is_odd(desk, token)), None)
    wanted = exchange.answer[:plain]
    if not wanted:
        return []
    sampling = {"temperature": 0, "n_probs": 1, "max_tokens": len(wanted)}
    _, found = asyncio.run(answered(desk, Job(list(exchange.ids), sampling, adapters, tuple(wanted))))
    return [abs(a - b) for a, b in zip(found, exchange.log_probs, strict=False)]


def is_odd(desk: Desk, token: int) -> bool:
    """Whether a token is a control token, part of a character, or begins with NUL, which ends llama.cpp's texts."""
    chat = desk.served.chat
    text = chat.decode([token])
    return token in chat.control_ids or token in chat.stop_ids or text.startswith("\0") or "\ufffd" in text


async def answered(desk: Desk, job: Job) -> tuple[list[int], list[float]]:
    """Return the tokens that the engine makes of a job, and their log-probabilities."""
    tokens = [token async for piece in desk.engine.generate([job]) for token in piece.logprobs or ()]
    return [token["id"] for token in tokens], [token["logprob"] for token in tokens]
