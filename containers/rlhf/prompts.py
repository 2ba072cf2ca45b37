"""What is answered: the prompts of a preferences or instructions data set, as token ids that open the answer's turn."""

from dataclasses import dataclass

from containers.contract import Dataset, Split, StageError
from containers.formats import ChatFormat, rows_of
from containers.policy import Policy
from containers.prompts import turns_of


@dataclass(frozen=True)
class Prompt:
    """A chat up to the header of the answer."""

    ids: list[int]
    text: str
    """The last message, for people."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of one split."""

    kept: list[Prompt]
    too_long: int
    """Prompts that were left out."""


def read_prompts(
    dataset: Dataset, split: Split, policy: Policy, max_prompt_tokens: int, max_new_tokens: int
) -> Prompts:
    """Return the prompts of `split` that leave room for an answer in the model's context.

    Raises StageError for a data set without prompts, and for a train split of which none is left.
    """
    if dataset.role not in ("preferences", "instructions"):
        raise StageError(f"prompts: a data set of {dataset.role} holds none; use preferences or instructions")
    context = int(policy.model.config.max_position_embeddings)
    limit = min(max_prompt_tokens, context - max_new_tokens)
    chats = [turns_of(row) for row in rows_of(dataset, split).to_pylist()]
    rendered = [(policy.chat.render(chat, open_turn=True).ids, chat[-1]["content"]) for chat in chats if chat]
    kept = [Prompt(ids, text) for ids, text in rendered if len(ids) <= limit]
    if split == "train" and not kept:
        raise StageError(
            f"{dataset.path / split}: none of {len(chats)} prompts has at most {limit} tokens (max_prompt_tokens "
            f"{max_prompt_tokens}; a context of {context} less max_new_tokens {max_new_tokens}): change these numbers"
        )
    return Prompts(kept, len(rendered) - len(kept))


def ending_of(chat: ChatFormat) -> int:
    """Return the id of the token that ends an answer; raises StageError for a template that puts none."""
    if chat.end_of_turn is None:
        turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
        shown = chat.decode(chat.render(turns).ids, control=True)
        raise StageError(
            f"the chat template puts no end-of-turn token after an answer, which then never ends: it renders "
            f"{shown!r}. Restore chat_template.jinja beside the policy, as it was when the policy learnt to chat"
        )
    return chat.end_of_turn
