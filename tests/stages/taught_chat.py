"""A small model that has learnt conversations by heart, end of turn included: what it says is known."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from containers.contract import Model
from containers.formats import ChatFormat, identity_of
from tests.stages.toy_chat import write_model


def taught_model(folder: Path, conversations: list[list[dict[str, str]]], **changes: Any) -> Model:
    """Write a model (as `toy_chat.write_model` does) that gives every answer of `conversations`; takes seconds."""
    torch.set_num_threads(1)
    write_model(folder, texts=[turn["content"] for chat in conversations for turn in chat], **changes)
    chat = ChatFormat.load(folder)
    rows = [chat.render(conversation) for conversation in conversations]
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows])
    trained = torch.tensor([row.trained + [False] * (longest - len(row.ids)) for row in rows])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(400):
        loss = model(ids, labels=ids.masked_fill(~trained, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            break
    assert loss.item() < 0.1, f"the model has not learnt its answers ({loss.item():.2f})"
    model.save_pretrained(folder)
    return Model.of(folder, **identity_of(folder))
