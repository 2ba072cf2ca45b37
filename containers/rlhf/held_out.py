"""The held-out measure: the mean score of greedy answers to prompts that are never trained on."""

from typing import Any

from containers.policy import Policy
from containers.rewarding import Rewarder
from containers.rlhf.prompts import Prompt
from containers.rlhf.rollouts import roll_out

SHOWN = 12


class HeldOut:
    """A fixed slice of the validation prompts."""

    def __init__(self, prompts: list[Prompt], rewarder: Rewarder, max_new_tokens: int) -> None:
        """Without prompts nothing is measured."""
        self.prompts, self.rewarder, self.max_new_tokens = prompts, rewarder, max_new_tokens
        self.before: list[str] = []
        self.answers: list[str] = []
        self.scores: list[float] = []

    def measure(self, policy: Policy) -> dict[str, float]:
        """Return the mean score (the reward model's own unit) of the policy's greedy answers, ended or not."""
        if not self.prompts:
            return {}
        rollouts = roll_out(policy, self.prompts, self.max_new_tokens)
        self.scores = self.rewarder.scores(rollouts.chats()).tolist()
        self.answers = [policy.chat.decode(answer.ids) for answer in rollouts.answers]
        self.before = self.before or self.answers
        return {"held_out": sum(self.scores) / len(self.scores)}

    def samples(self) -> list[dict[str, Any]]:
        """Return some prompts with the first answer, the last one and its score, for the card."""
        told = zip(self.prompts, self.before, self.answers, self.scores, strict=True) if self.answers else ()
        rows = [{"prompt": p.text, "before": b, "after": a, "score": round(s, 4)} for p, b, a, s in told]
        return rows[:SHOWN]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"before": self.before, "answers": self.answers, "scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.before, self.answers, self.scores = state["before"], state["answers"], state["scores"]
