"""TRL's GRPOTrainer (Shao et al. 2024, arXiv:2402.03300) with rollouts of our own; idle groups are spared."""

from typing import Any

import torch
from trl.trainer.grpo_config import GRPOConfig as TRLConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from containers.grpo.config import GRPOConfig
from containers.grpo.rewards import Rewarding
from containers.health import Guard
from containers.online.trainer import OnlineSteps, arguments_of
from containers.out import Out
from containers.policy import Policy


class GroupTrainer(OnlineSteps, GRPOTrainer):
    """GRPOTrainer on verifiable rewards."""

    def __init__(
        self, policy: Policy, config: GRPOConfig, rows: list[dict[str, Any]], rewards: list[Rewarding], out: Out
    ) -> None:
        """Train `policy` on `rows` for the weighted sum of `rewards`."""
        self.config, self.guard = config, Guard(config.health, out)
        arguments = TRLConfig(
            **arguments_of(config, policy, out),
            loss_type=config.loss,
            scale_rewards=config.scale,
            reward_weights=[reward.weight for reward in rewards],
        )
        super().__init__(policy, arguments, rows, list(rewards))

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        return self.rollout(prompt_ids), None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Return TRL's loss of the answers that differ from their group; the others would add nothing but work."""
        teaches = inputs["advantages"] != 0
        if self.config.zero_spread == "keep" or bool(teaches.all()):
            return super()._compute_loss(model, inputs)
        if not bool(teaches.any()):
            return sum(p.sum() * 0 for p in model.parameters() if p.requires_grad)
        count = len(teaches)
        kept = {n: v[teaches] if torch.is_tensor(v) and v.dim() and len(v) == count else v for n, v in inputs.items()}
        loss: torch.Tensor = super()._compute_loss(model, kept)
        # dapo divides by the tokens of the whole rollout, the others by the answers that they are given
        return loss if self.config.loss == "dapo" else loss * (int(teaches.sum()) / count)
