"""A small policy that answers and ends its answers, and reward models for it, made in seconds."""

from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from containers.contract import Model, RewardModel
from containers.formats import ChatFormat, identity_of
from containers.models import load_model, save_model
from containers.packing import lay_out
from containers.policy import packed
from containers.reward_model import load_reward_model, save_reward_model
from tests.stages.toy_chat import chats, question


def teach(source: Model, folder: Path, steps: int = 40) -> Model:
    """Return `source` after a few steps on the toy chats: half of its answers are long sentences, half short ones."""
    torch.manual_seed(0)
    model, chat = packed(load_model(source, "fp32")), ChatFormat.load(source.path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    row = lay_out([chat.render(messages) for messages in chats(36)])
    targets = row.pop("targets")
    for _ in range(steps):
        cross_entropy(model(**row, use_cache=False).logits[0], targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    folder.mkdir(parents=True)
    model.set_attn_implementation("sdpa")
    save_model(model, folder, source.path)
    return Model.of(folder, **identity_of(folder))


def write_reward(policy: Model, folder: Path, scale: float = 1.0) -> RewardModel:
    """Write a reward model with a random head, its scores times `scale`."""
    torch.manual_seed(1)
    model = load_reward_model(policy, "fp32")
    model.score.weight.data *= scale
    return save_reward_model(model, folder, policy.path)


def write_judge(policy: Model, folder: Path, steps: int = 40) -> RewardModel:
    """Write a reward model that has learnt to like the long sentences."""
    torch.manual_seed(1)
    model, chat = load_reward_model(policy, "fp32"), ChatFormat.load(policy.path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pairs = [(chats(1, 2 * i + 1)[0][1], chats(1, 2 * i)[0][1]) for i in range(18)]
    lessons = []
    for place, answers in enumerate(pairs):
        for answer in answers:
            ids = chat.render([{"role": "user", "content": question(place)}, answer])
            end = len(ids.trained) - ids.trained[::-1].index(True)
            lessons.append(type(ids)([*ids.ids[:end], 0], [False] * end + [True]))
    row = lay_out(lessons)
    row.pop("targets")
    for _ in range(steps):
        scores = model(row=row).logits[:, 0]
        (
            -logsigmoid(scores[::2] - scores[1::2]).mean() + 0.01 * (scores[::2] + scores[1::2]).square().mean()
        ).backward()
        optimizer.step()
        optimizer.zero_grad()
    return save_reward_model(model, folder, policy.path)
