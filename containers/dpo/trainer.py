"""TRL's DPOTrainer and KTOTrainer on packed pairs: their losses, from the log-probabilities of one packed row."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.dpo_config import DPOConfig as TRLDPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig as TRLKTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from containers.dpo.contract import DPOConfig
from containers.dpo.reference import Reference, strangers_of
from containers.pairs.packing import predicted_row
from containers.pairs.rows import Pair
from containers.pairs.training import Course, PairReporter, PairSteps, arguments_of, tokenizer_of
from containers.policy import Policy
from containers.scoring import answer_packed

CURVES = {
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_log_prob",
    "logps/rejected": "rejected_log_prob",
    "entropy": "entropy",
    "kl": "kl",
}
"""What TRL logs -> what it is called here."""
LOSSES = {"dpo": "sigmoid", "ipo": "ipo"}


class ReferredSteps(PairSteps):
    """Pairs whose reference log-probabilities are known already."""

    def __init__(self, policy: Policy, args: Any, course: Course, reporter: PairReporter) -> None:
        """Ask the reference about every pair, then wrap the policy."""
        self.reference = Reference(policy, course.budget, reporter.out).learn(course.pairs, "pairs")
        super().__init__(policy.model, args, course, tokenizer_of(policy.source), reporter)
        base = policy.model
        if policy.loaded_as:
            policy.model.delete_adapter("ref")  # TRL's copy of an adapter that adds nothing yet
            base = policy.model.get_base_model()
        answer_packed(base)

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset  # steps; `reference` knows


class PackedDPOTrainer(ReferredSteps, DPOTrainer):
    """dpo and ipo."""

    def inputs_of(self, pairs: list[Pair]) -> dict[str, Any]:
        """Return the padded ids that TRL counts and masks by, the row that the model reads, and the reference."""
        known = torch.from_numpy(self.reference.of(pairs))
        return {
            **padded(pairs),
            "row": predicted_row(pairs),
            "ref_chosen_logps": known[:, 0],
            "ref_rejected_logps": known[:, 1],
        }


class PackedKTOTrainer(ReferredSteps, KTOTrainer):
    """kto: each answer alone, wanted or not."""

    def __init__(self, policy: Policy, args: Any, course: Course, reporter: PairReporter) -> None:
        """Ask the reference about prompts with other prompts' answers too."""
        others = strangers_of(course.pairs, course.config.max_length)
        self.strangers = {pair.number: pair for pair in others}
        self.strange = Reference(policy, course.budget, reporter.out).learn(others, "strangers")
        super().__init__(policy, args, course, reporter)
        self.loss_type, self.calculate_KL = "kto", True

    def inputs_of(self, pairs: list[Pair]) -> dict[str, Any]:
        """Return what TRL's KTO reads: answers, labels and the answers that its KL is estimated on."""
        others = [self.strangers[pair.number] for pair in pairs]
        return {
            **padded(pairs),
            "row": predicted_row(pairs),
            "label": torch.tensor([True] * len(pairs) + [False] * len(pairs)),
            "ref_logps": torch.from_numpy(self.reference.of(pairs)).T.flatten(),
            **{f"KL_{name}": value for name, value in padded(others).items()},
            "KL_row": predicted_row(others),
            "ref_KL_logps": torch.from_numpy(self.strange.of(pairs)).T.flatten(),
        }

    def _compute_kl_logps(self, model: Any, batch: dict[str, Any]) -> Any:
        batch = dict(batch)
        batch["row"] = batch.pop("KL_row")
        return super()._compute_kl_logps(model, batch)


def padded(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and `completion_mask` (2 x pairs, longest): chosen, then rejected."""
    sides = [[pair.chosen for pair in pairs], [pair.rejected for pair in pairs]]
    prompts = [pair.prompt for pair in pairs]
    ids = [[*p, *a.ids] for side in sides for p, a in zip(prompts, side, strict=True)]
    trained = [[*[0] * len(p), *map(int, a.trained)] for side in sides for p, a in zip(prompts, side, strict=True)]

    def block(rows: list[list[int]]) -> Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)

    return {
        "input_ids": block(ids),
        "attention_mask": block([[1] * len(row) for row in ids]),
        "completion_mask": block(trained),
    }


def trainer_of(policy: Policy, course: Course, config: DPOConfig, reporter: PairReporter) -> Any:
    """Return the trainer of `config.loss`."""
    given = arguments_of(course, reporter.out, policy.device, policy.precision)
    given |= {"beta": config.beta, "precompute_ref_log_probs": True, "max_length": None}
    if config.loss == "kto":
        # The loss without a KL term, until the constructor is done: the one with it refuses loader batches of one item,
        # which here is one step of many pairs.
        arguments = TRLKTOConfig(**given, loss_type="apo_zero_unpaired")
        return PackedKTOTrainer(policy, arguments, course, reporter)
    losses = {LOSSES[config.loss]: 1.0} | ({"sft": config.nll_weight} if config.nll_weight else {})
    arguments = TRLDPOConfig(**given, loss_type=list(losses), loss_weights=list(losses.values()))
    return PackedDPOTrainer(policy, arguments, course, reporter)
