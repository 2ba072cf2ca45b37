"""Proximal policy optimisation of a language model (Schulman et al. 2017, Ziegler et al. 2019, Huang et al. 2023).

An update draws a batch of answers, scores it, and goes through it `epochs` times. Everything random is seeded by (seed,
update) and checkpoints are taken only where a batch is used up, so that a killed run goes on to the same bits.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from containers.contract import Adapter, Model
from containers.generation import Draw
from containers.health import Guard, Sample
from containers.out import Out
from containers.policy import Policy
from containers.rewarding import Rewarder
from containers.rlhf.actor_critic import ActorCritic
from containers.rlhf.advantages import RunningScale, advantages_of, explained_variance, steered, token_rewards, whitened
from containers.rlhf.config import PPOConfig
from containers.rlhf.contract import RLHFInputs
from containers.rlhf.held_out import HeldOut
from containers.rlhf.improving import Batch, Improver
from containers.rlhf.keeping import keep, restore
from containers.rlhf.prompts import Prompts, ending_of, read_prompts
from containers.rlhf.rollouts import Rollouts, roll_out


def align(config: PPOConfig, inputs: RLHFInputs, out: Out) -> Model | Adapter:
    """Return the aligned policy; raises StageError for inputs that do not belong together, Unhealthy past a bound."""
    policy = Policy.load(inputs.policy, config, out)
    ending_of(policy.chat)
    trainer = Trainer(config, policy, Rewarder(inputs.reward, policy, config.micro_batch_size), out)
    train, held_out = (
        read_prompts(inputs.prompts, split, policy, config.max_prompt_tokens, config.max_new_tokens)
        for split in ("train", "validation")
    )
    began = time.monotonic()
    measure = HeldOut(held_out.kept[: config.held_out_prompts], trainer.rewarder, config.max_new_tokens)
    trainer.train(train, measure)
    out.record(train_seconds=time.monotonic() - began)
    samples = measure.samples()
    made = policy.save(out)
    out.write_card(
        algorithm=config.algorithm, weights=config.weights.method, updates=config.updates, prompts=len(train.kept),
        prompts_too_long=train.too_long, held_out_prompts=len(measure.prompts), samples=samples, **out.recorded,
    )  # fmt: skip
    return made


class Trainer:
    """All that changes while a policy is trained; `state_dict` of each part goes into a checkpoint."""

    def __init__(self, config: PPOConfig, policy: Policy, rewarder: Rewarder, out: Out) -> None:
        """Begin from the policy as it came."""
        self.config, self.policy, self.rewarder, self.out = config, policy, rewarder, out
        self.actor = ActorCritic(policy, config.temperature)
        self.improver = Improver(self.actor, config)
        self.scale = RunningScale()
        self.guard = Guard(config.health, out)
        self.kl_coefficient = config.kl_coefficient

    def train(self, prompts: Prompts, held_out: HeldOut) -> None:
        """Take all updates, from the newest committed checkpoint if there is one."""
        done = restore(self, held_out, self.out)
        self.guard.check(done)
        if not done:
            self.guard.watch(0, held_out.measure(self.policy))
        for update in range(done + 1, self.config.updates + 1):
            torch.manual_seed(seed_of(self.config.seed, update))  # an adapter's dropout
            rollouts = self.roll_out(prompts, update)
            figures, samples = self.update(rollouts, update)
            last = update == self.config.updates
            if held_out.prompts and (last or update % self.config.held_out_every == 0):
                figures |= held_out.measure(self.policy)
            self.guard.watch(update, figures, samples)
            self.report(update, figures)
            if last or update % self.config.checkpoint_every == 0:
                keep(self, held_out, self.out, update)
                self.guard.check(update)

    def roll_out(self, prompts: Prompts, update: int) -> Rollouts:
        """Draw the answers of one update, the same ones for the same weights, seed and update."""
        chosen = [
            prompts.kept[i] for i in places_of(len(prompts.kept), self.config.batch_size, update, self.config.seed)
        ]
        draw = Draw(self.config.temperature, seed_of(self.config.seed, update), self.policy.device)
        return roll_out(self.policy, chosen, self.config.max_new_tokens, draw)

    def update(self, rollouts: Rollouts, update: int) -> tuple[dict[str, float], list[Sample]]:
        """Score a batch of answers, learn from it, and return its figures and answers."""
        rewards, scores = self.rewards_of(rollouts)
        batch, figures = self.batch_of(rollouts, rewards)
        figures |= self.improver.improve(batch, update)
        figures |= {
            "reward": float(scores.mean()),
            "zero_spread": float(scores[rollouts.ended].std(correction=0) < 1e-6),
            "length": float(rollouts.lengths.float().mean()),
            "truncated": float((~rollouts.ended).float().mean()),
            "kl_coefficient": self.kl_coefficient,
        }
        share = self.config.batch_size / self.config.kl_horizon
        self.kl_coefficient = steered(self.kl_coefficient, figures["kl"], self.config.kl_target, share)
        decode = self.policy.chat.decode
        told = zip(rollouts.prompts, rollouts.answers, scores.tolist(), strict=True)
        return figures, [Sample(prompt.text, decode(answer.ids, control=True), score) for prompt, answer, score in told]

    def rewards_of(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Return each answer's reward (B), in standard deviations, and the same in the reward model's own unit.

        An answer that never ends is not shown to the reward model: it gets `unended_reward`.
        """
        chats, ended = rollouts.chats(), rollouts.ended
        scores = self.rewarder.scores([chat for chat, whole in zip(chats, ended.tolist(), strict=True) if whole])
        self.scale.add(scores)
        rewards = torch.full((len(chats),), self.config.unended_reward)
        rewards[ended] = (scores - self.scale.mean) / self.scale.spread
        return rewards, rewards * self.scale.spread + self.scale.mean

    def batch_of(self, rollouts: Rollouts, rewards: Tensor) -> tuple[Batch, dict[str, float]]:
        """Return what is learnt from the answers, and what is to be seen before anything is."""
        lessons, lengths = rollouts.lessons(), rollouts.lengths.tolist()
        mine, reference = self.actor.look_back(lessons, self.config.micro_batch_size)
        log_probs, entropy, values, reference = (
            pad_sequence(list(flat.cpu().split(lengths)), batch_first=True)
            for flat in (mine.log_probs, mine.entropy, mine.values, reference)
        )
        seen = torch.arange(log_probs.shape[1]) < rollouts.lengths[:, None]
        log_ratio = (log_probs - reference) * seen
        per_token = token_rewards(log_ratio, seen, rewards, self.kl_coefficient)
        advantages = advantages_of(per_token, values, seen, self.config.gamma, self.config.gae_lambda)
        returns = advantages + values
        drawn = pad_sequence([torch.tensor(answer.log_probs) for answer in rollouts.answers], batch_first=True)
        figures = {
            "kl": float(log_ratio.sum(1).mean()),
            "entropy": float(entropy[seen].mean()),
            "log_prob_gap": float((log_probs - drawn)[seen].abs().mean()),
            "explained_variance": explained_variance(values[seen], returns[seen]),
        }
        return Batch(lessons, seen, log_probs, values, whitened(advantages, seen), returns), figures

    def report(self, update: int, figures: dict[str, float]) -> None:
        """Append a point to each curve."""
        self.out.metrics(update, **figures)
        shown = {name: figures[name] for name in ("reward", "kl", "length")}
        self.out.progress(update, self.config.updates, "updates", **shown)
        self.out.record(**figures)


def seed_of(seed: int, update: int) -> int:
    """Return the seed of all that is drawn in an update."""
    return (seed * 1_000_003 + update) % 2**63


def places_of(count: int, size: int, update: int, seed: int) -> list[int]:
    """Return which prompts an update answers: all are answered once before one is answered again."""
    first = (update - 1) * size
    rounds = {place // count for place in range(first, first + size)}
    orders: dict[int, Any] = {n: np.random.default_rng([seed, n]).permutation(count) for n in rounds}
    return [int(orders[place // count][place % count]) for place in range(first, first + size)]
