"""The router bias under the sign rule: conserved sum, right direction, and balance in the end."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from selenite.optim.balance import update_router_bias


@given(
    loads=st.lists(st.integers(0, 10_000), min_size=2, max_size=64),
    speed=st.sampled_from([1e-3, 1e-2]),
)
def test_sum_is_kept_and_the_direction_is_right(loads, speed):
    load_E = torch.tensor(loads)
    bias_E = torch.linspace(-0.1, 0.1, len(loads))
    before = bias_E.clone()
    update_router_bias(bias_E, load_E, speed)
    moved = bias_E - before
    assert abs(moved.sum().item()) < 1e-6 * len(loads)  # float32 rounding of each entry
    mean = load_E.double().mean()
    under, over = moved[load_E < mean], moved[load_E > mean]
    if len(under):
        assert under.min() > over.max()


def test_layers_are_independent_and_speed_zero_freezes():
    load_LE = torch.tensor([[10, 0, 2], [1, 1, 10]])
    bias_LE = torch.zeros(2, 3)
    update_router_bias(bias_LE, load_LE, 0.0)
    assert torch.equal(bias_LE, torch.zeros(2, 3))
    update_router_bias(bias_LE, load_LE, 1e-3)
    for row, load_E in enumerate(load_LE):
        alone = torch.zeros(3)
        update_router_bias(alone, load_E, 1e-3)
        assert torch.equal(bias_LE[row], alone)
    # below, above: signs (-1, 1, 1) less their mean 1/3
    expected = torch.tensor([-4 / 3, 2 / 3, 2 / 3]) * 1e-3
    assert torch.allclose(bias_LE[0], expected)


def test_balances_a_skewed_router_within_2000_updates():
    """Sigmoid scores with a strong preference for the first experts, 2 of 16 chosen."""
    generator = torch.Generator().manual_seed(0)
    skew_E = torch.linspace(1.0, -1.0, 16)
    bias_E = torch.zeros(16)

    def load() -> torch.Tensor:
        scores_TE = (torch.randn(1024, 16, generator=generator) + skew_E).sigmoid()
        chosen_TK = (scores_TE + bias_E).topk(2, dim=1).indices
        return chosen_TK.flatten().bincount(minlength=16)

    def imbalance() -> float:
        total_E = sum(load() for _ in range(20))
        return (total_E.max() / total_E.double().mean()).item()

    assert imbalance() > 2
    for _ in range(2000):
        update_router_bias(bias_E, load(), 1e-3)
    assert imbalance() < 1.2
    assert abs(bias_E.sum().item()) < 1e-4  # rounding of 2,000 additions
