"""The 16-bit parent's own answers in transformers, to which every format is held when it is packed."""

import torch
from transformers import AutoTokenizer, PreTrainedModel

from containers.contract import Model, StageError
from containers.formats import ChatFormat, Message
from containers.generation import Job, answer_all
from containers.reference import Exchange, Reference

TOKENS = 24
"""Longest answer."""
PROMPTS: tuple[tuple[str, ...], ...] = (
    ("What is 2+2?",),
    ("Write one sentence about the sea.",),
    ("I can't log in. What should I do?",),
    ("List three colours:\n- red\n-",),
    ("caf\u00e9 stra\u00dfe \u4f60\u597d \U0001f30a?",),
    ("Hello!", "Hello. How can I help?", "What is 12,345 - 67?"),
    ("Is `def f(x): return x**2` code?  And <b>this</b>?",),
)
"""Turns of user and assistant, the user's first: what tokenizers disagree on is among them."""


@torch.inference_mode()
def reference_of(model: PreTrainedModel, source: Model, context: int, precision: str) -> Reference:
    """Return what `model`, loaded from `source`, answers to PROMPTS that fit its `context`.

    Raises StageError where transformers writes a chat otherwise than training and serving do.
    """
    chat = ChatFormat.load(source.path)
    tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=True)
    chats = [turns(said) for said in PROMPTS] if chat.template else []
    asked = [(messages, *ids_of(messages, chat, tokenizer)) for messages in chats]
    asked = [(messages, ids, same) for messages, ids, same in asked if len(ids) + TOKENS <= context]
    stops = set(chat.stop_ids)
    jobs = [Job(ids, TOKENS, lambda made: made[-1] in stops) for _, ids, _ in asked]
    answers = answer_all(model, jobs, max(len(jobs), 1), lambda done: None)
    exchanges = []
    for (messages, ids, same), answer in zip(asked, answers, strict=True):
        read = torch.tensor([ids + answer], device=model.device)
        logits = model(input_ids=read, use_cache=False).logits[0, len(ids) - 1 : -1].float().cpu()
        log_probs = torch.log_softmax(logits, -1)
        best = log_probs.topk(2, -1).values
        said = log_probs.gather(1, torch.tensor(answer)[:, None])[:, 0]
        exchanges.append(
            Exchange(
                messages=tuple(messages),
                ids=tuple(ids),
                as_transformers=same,
                answer=tuple(answer),
                log_probs=tuple(round(value, 4) for value in said.tolist()),
                margins=tuple(round(value, 4) for value in (best[:, 0] - best[:, 1]).tolist()),
            )
        )
    return Reference(parent=source.digest, precision=precision, exchanges=tuple(exchanges))


def turns(said: tuple[str, ...]) -> list[Message]:
    """Return the messages of a chat, user and assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def ids_of(messages: list[Message], chat: ChatFormat, tokenizer: AutoTokenizer) -> tuple[list[int], bool]:
    """Return a chat's tokens, and whether transformers makes the same; raises StageError where not even the text is."""
    ids = chat.render(messages, open_turn=True).ids
    ours = chat.decode(ids, control=True)
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if ours != theirs:
        raise StageError(
            f"transformers writes a chat otherwise than we do ({theirs!r} instead of {ours!r}): mend "
            "chat_template.jinja or tokenizer_config.json beside the weights"
        )
    return ids, tokenizer(theirs, add_special_tokens=False)["input_ids"] == ids
