"""Muon: its steps are orthogonal and as long as AdamW's, and it takes them with the matrices between layers only."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from containers.muon import LIKE_ADAM, Muon, groups_of, orthogonal

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}


def small_llama(tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, intermediate_size=160, vocab_size=96, tie_word_embeddings=tied))


def train(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batches: torch.Tensor) -> None:
    for ids in batches:
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 48, 160), (2, 160, 48)])
def test_a_step_turns_and_hardly_stretches(shape):
    torch.manual_seed(0)
    stretched = torch.linalg.svdvals(orthogonal(torch.randn(shape) * 1e-3))
    assert stretched.max() < 1.3 and stretched.quantile(0.1) > 0.5  # a random square matrix has a few near 0


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_head_and_norms_stay_with_adamw(tied):
    model = small_llama(tied)
    groups = groups_of(model, 0.1, turning=True)
    names = {id(weight): name for name, weight in model.named_parameters()}
    turning = {names[id(w)] for group in groups if group.get("orthogonal") for w in group["params"]}
    assert len(turning) == 2 * 7 and all(".layers." in name and "norm" not in name for name in turning)
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]


def test_one_learning_rate_serves_both():
    model = small_llama(tied=True)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimizer = Muon(groups_of(model, 0.0, turning=True), lr=1e-2, betas=(0.9, 0.95))
    ids = torch.randint(96, (4, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    for name, weight in model.named_parameters():
        length = (weight - before[name]).square().mean().sqrt()
        if "mlp" in name or "q_proj" in name:
            assert 0.5 < length / (1e-2 * LIKE_ADAM) < 1.5, name
        else:
            assert length > 0, name


def test_what_was_saved_goes_on_as_if_nothing_had_happened():
    torch.manual_seed(0)
    batches = torch.randint(96, (4, 4, 16))
    through = small_llama(tied=True)
    optimizer = Muon(groups_of(through, 0.1, turning=True), lr=1e-2, betas=(0.9, 0.95))
    train(through, optimizer, batches[:2])
    resumed = small_llama(tied=True)
    resumed.load_state_dict(through.state_dict())
    loaded = Muon(groups_of(resumed, 0.1, turning=True), lr=1e-2, betas=(0.9, 0.95))
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(through, optimizer, batches[2:])
    train(resumed, loaded, batches[2:])
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), resumed.parameters(), strict=True))


def test_without_turning_it_is_adamw():
    mine, plain = small_llama(tied=True), small_llama(tied=True)
    ours = Muon(groups_of(mine, 0.1, turning=False), lr=1e-2, betas=(0.9, 0.95))
    theirs = torch.optim.AdamW(groups_of(plain, 0.1, turning=False), lr=1e-2, betas=(0.9, 0.95), fused=True)
    batches = torch.randint(96, (3, 4, 16))
    train(mine, ours, batches)
    train(plain, theirs, batches)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), plain.parameters(), strict=True))
