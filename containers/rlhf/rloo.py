"""TRL's RLOOTrainer (Ahmadian et al. 2024, arXiv:2402.14740) with rollouts of our own, scored by a reward model.

The answers to a prompt are each other's baseline: no value model. What a rollout's tokens were drawn with is the old
policy, so that no forward pass computes it again.
"""

from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar
from trl.trainer.rloo_config import RLOOConfig as TRLConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from containers.contract import Adapter, Model
from containers.health import Guard
from containers.online.reporter import OnlineReporter, train
from containers.online.trainer import OnlineSteps, arguments_of
from containers.out import Out
from containers.policy import Policy
from containers.rewarding import Rewarder
from containers.rlhf.contract import RLHFInputs
from containers.rlhf.held_out import HeldOut
from containers.rlhf.prompts import Prompt, ending_of, read_prompts
from containers.rlhf.rloo_config import RLOOConfig


def align(config: RLOOConfig, inputs: RLHFInputs, out: Out) -> Model | Adapter:
    """Return the aligned policy; raises StageError for inputs that do not belong together, Unhealthy past a bound."""
    disable_progress_bar()  # the host draws its own from out.progress
    policy = Policy.load(inputs.policy, config, out, referenced=config.beta > 0)
    rewarder = Rewarder(inputs.reward, policy, config.micro_batch)
    prompts, held_out = (
        read_prompts(inputs.prompts, split, policy, config.max_prompt_tokens, config.max_new_tokens)
        for split in ("train", "validation")
    )
    measured = HeldOut(held_out.kept[: config.validation_rows], rewarder, config.max_new_tokens)
    reporter = OnlineReporter(out, config, lambda _: measured.measure(policy), "held_out", {})
    before = train(LeaveOneOutTrainer(policy, config, prompts.kept, rewarder, out), reporter)
    out.record(**{f"{name}_before": value for name, value in before.items()}, train_seconds=reporter.seconds)
    made = policy.save(out)
    out.write_card(
        algorithm=config.algorithm, weights=config.weights.method, steps=config.steps, prompts=len(prompts.kept),
        prompts_too_long=prompts.too_long, held_out_prompts=len(measured.prompts), samples=measured.samples(),
        **out.recorded,
    )  # fmt: skip
    return made


class LeaveOneOutTrainer(OnlineSteps, RLOOTrainer):
    """RLOOTrainer on a reward model that shares the policy's tokens."""

    def __init__(self, policy: Policy, config: RLOOConfig, prompts: list[Prompt], rewarder: Rewarder, out: Out) -> None:
        """Train `policy` on `prompts` for the scores of `rewarder`."""
        self.config, self.guard = config, Guard(config.health, out)
        self.rewarder, self.end = rewarder, ending_of(policy.chat)
        self.unread: torch.Tensor | None = None
        arguments = TRLConfig(
            **arguments_of(config, policy, out),
            epsilon=config.clip_range,
            normalize_advantages=config.normalize_advantages,
        )
        rows = [{"prompt": [{"role": "user", "content": prompt.text}], "ids": prompt.ids} for prompt in prompts]
        super().__init__(policy, arguments, rows, [self.score])

    def score(self, ids: list[list[int]], completion_ids: list[list[int]], **_: Any) -> list[float]:
        """Return the reward model's score of each answer, less the penalty where it was cut off."""
        scores = self.rewarder.scores([prompt + answer for prompt, answer in zip(ids, completion_ids, strict=True)])
        unended = torch.tensor([answer[-1] != self.end for answer in completion_ids])
        found: list[float] = (scores - self.config.unended_penalty * unended).tolist()
        return found

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
        answers = self.rollout(prompt_ids)
        self.unread = self.drawn
        return answers

    def _get_per_token_logps_and_entropies(self, *given: Any, **options: Any) -> Any:
        if self.unread is None:
            return super()._get_per_token_logps_and_entropies(*given, **options)
        old, self.unread = self.unread.to(self.args.device), None  # the first that is asked for after a rollout
        return old, None, None
