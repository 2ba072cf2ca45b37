"""Answers judged by a reward model: many in one packed row, each read at the token that ends it."""

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from containers.contract import CONVERTIBLE, RewardModel, StageError
from containers.formats import Rendered
from containers.packing import lay_out
from containers.policy import Policy
from containers.reward_model import load_reward_model

JUDGES = tuple(name.replace("CausalLM", "SequenceClassification") for name in CONVERTIBLE)


class Rewarder:
    """A reward model beside the policy whose answers it judges."""

    def __init__(self, source: RewardModel, policy: Policy, micro_batch_size: int) -> None:
        """Load it frozen, in the policy's precision; raises StageError where `check_reward` does."""
        check_reward(source, policy)
        self.model = load_reward_model(source, policy.precision, device=policy.device).requires_grad_(False)
        self.device, self.micro_batch_size = policy.device, micro_batch_size

    @torch.no_grad()
    def scores(self, chats: Sequence[Sequence[int]]) -> Tensor:
        """Return the score of each chat's last token, (N) in fp32 on the CPU; `chats` are token ids, answers ended."""
        found = torch.empty(len(chats))
        order = sorted(range(len(chats)), key=lambda i: len(chats[i]))
        for first in range(0, len(order), self.micro_batch_size):
            part = order[first : first + self.micro_batch_size]
            found[part] = self.model(row=self.row([chats[i] for i in part])).logits[:, 0].float().cpu()
        return found

    def row(self, chats: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return a packed row that is read at the last token of each chat."""
        one_more = [Rendered([*ids, 0], [False] * len(ids) + [True]) for ids in chats]  # what is read leads to no token
        return {name: value.to(self.device) for name, value in lay_out(one_more).items() if name != "targets"}


def check_reward(source: RewardModel, policy: Policy) -> None:
    """Raise StageError unless `source` has one label and reads the policy's own tokens, in its own template."""
    config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    name = (config.get("architectures") or ["none"])[0]
    if name not in JUDGES or len(config.get("id2label", "..")) != 1:
        raise StageError(
            f"{source.path / 'config.json'}: a reward model is one of {', '.join(JUDGES)} with one label, not {name} "
            f"with {len(config.get('id2label', '..'))}: train one with the stage `reward`"
        )
    for part, what in (("tokenizer", "tokenizer"), ("template", "chat template")):
        if getattr(source, part) != getattr(policy.source, part):
            raise StageError(
                f"reward model and policy do not belong together: another {what} lies beside each ({source.path}, "
                f"{policy.source.path}); train the reward model from this policy, or from the model that it came from"
            )
