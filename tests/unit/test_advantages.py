"""Rewards per token, advantages and steered numbers, against the formulas written out."""

import numpy as np
import pytest
import torch

from containers.rlhf.advantages import RunningScale, advantages_of, explained_variance, steered, token_rewards, whitened

SEEN = torch.tensor([[True, True, True, True], [True, True, False, False]])


def test_advantages_are_the_discounted_sum_of_surprises() -> None:
    draw = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 4, generator=draw) * SEEN, torch.randn(2, 4, generator=draw)
    gamma, gae_lambda = 0.9, 0.7
    made = advantages_of(rewards, values, SEEN, gamma, gae_lambda)
    for row, length in enumerate((4, 2)):
        v = [*values[row, :length].tolist(), 0.0]
        surprise = [float(rewards[row, t]) + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            wanted = sum((gamma * gae_lambda) ** (k - t) * surprise[k] for k in range(t, length))
            assert made[row, t] == pytest.approx(wanted, abs=1e-6)
    assert made[1, 2:].tolist() == [0, 0]


def test_without_discount_the_advantage_is_what_comes_less_what_was_expected() -> None:
    rewards, values = torch.tensor([[0.0, 0, 0, 5], [0, 3, 0, 0]]), torch.ones(2, 4)
    made = advantages_of(rewards, values, SEEN, 1.0, 1.0)
    assert made.tolist() == [[4, 4, 4, 4], [2, 2, 0, 0]]


def test_distance_is_paid_per_token_and_the_answer_at_its_end() -> None:
    log_ratio = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    made = token_rewards(log_ratio, SEEN, torch.tensor([10.0, 20]), 0.1)
    torch.testing.assert_close(made, torch.tensor([[-0.1, -0.2, -0.3, 9.6], [-0.5, 19.4, 0, 0]]))


def test_the_running_scale_is_that_of_all_scores() -> None:
    scores = torch.randn(50, generator=torch.Generator().manual_seed(1)) * 3 + 100
    scale = RunningScale()
    for part in scores.split([1, 7, 0, 30, 12]):
        scale.add(part)
    assert scale.mean == pytest.approx(float(scores.double().mean()))
    assert scale.spread == pytest.approx(float(scores.double().std(correction=0)))
    assert RunningScale(**scale.state_dict()) == scale
    constant = RunningScale()
    constant.add(torch.full((9,), 7.0))
    assert (constant.mean, constant.spread) == (7.0, 1.0)


def test_whitened_values_have_mean_zero_and_spread_one_where_they_are_seen() -> None:
    made = whitened(torch.tensor([[1.0, 2, 3, 4], [5, 6, 99, 99]]), SEEN)
    assert float(made[SEEN].mean()) == pytest.approx(0, abs=1e-6) and float(
        made[SEEN].std(correction=0)
    ) == pytest.approx(1)
    assert made[1, 2:].tolist() == [0, 0]


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2, 3, 4])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.zeros(4), returns) == 0
    assert explained_variance(torch.zeros(4), torch.ones(4)) == 0


def test_the_coefficient_is_steered_to_the_target_and_never_by_more_than_a_fifth() -> None:
    assert steered(0.1, 9.0, None, 1.0) == 0.1
    assert steered(0.1, 9.0, 3.0, 0.5) == pytest.approx(0.1 * 1.1)
    assert steered(0.1, 0.0, 3.0, 0.5) == pytest.approx(0.1 * 0.9)
    assert steered(0.1, 3.3, 3.0, 1.0) == pytest.approx(0.1 * np.float64(1.1))
