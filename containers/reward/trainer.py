"""TRL's RewardTrainer on packed pairs: the backbone runs once over a row of all answers, the head on their ends."""

from typing import Any

import numpy as np
import torch
from trl.trainer.reward_config import RewardConfig as TRLConfig
from trl.trainer.reward_trainer import RewardTrainer

from containers.out import Out
from containers.pairs.packing import filled, moved, scored_row
from containers.pairs.rows import Pair
from containers.pairs.training import Course, PairSteps, arguments_of
from containers.reward.contract import RewardConfig
from containers.reward_model import scores

CURVES = {"accuracy": "accuracy", "margin": "margin", "mean_reward": "mean_score"}


class PackedRewardTrainer(PairSteps, RewardTrainer):
    """Bradley-Terry: the chosen answer's score minus the rejected one's are the log-odds that it is preferred."""

    def inputs_of(self, pairs: list[Pair]) -> dict[str, Any]:
        """Return the packed row; the mask is only counted."""
        row = scored_row(pairs)
        return {"row": row, "attention_mask": torch.ones_like(row["input_ids"])}


def trainer_arguments(course: Course, config: RewardConfig, out: Out, machine: tuple[torch.device, str]) -> TRLConfig:
    """Return the trainer's own settings for (device, precision)."""
    return TRLConfig(**arguments_of(course, out, *machine), center_rewards_coefficient=config.center_rewards or None)


@torch.no_grad()
def scores_of(model: Any, pairs: list[Pair], budget: int, precision: torch.dtype | None = None) -> np.ndarray:
    """Return the scores (pairs, 2) of chosen and rejected answers, fp32; `precision` is autocast's, if any."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    found = []
    with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
        for lot in filled(pairs, budget):
            found.append(scores(model, moved(scored_row(lot), device)).view(2, -1).T.float().cpu())
    model.train(training)
    return torch.cat(found).numpy() if found else np.empty((0, 2))
