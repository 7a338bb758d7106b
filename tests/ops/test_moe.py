"""Routing against brute force, and the grouped expert products against one expert after another.

Tolerance in float32: sums of at most 48 products of order one; 1e-5. In bf16 each product rounds
at 2**-8 of outputs of order ten.
"""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from selenite.model.moe import MoE
from selenite.ops import moe
from selenite.ops.moe import (
    dispatch,
    expert_load,
    experts,
    experts_reference,
    gate_weights,
    select_experts,
)
from tests.fixtures.tiny import k2_config, tiny_model

D, F = 16, 24


def inputs(T: int, E: int, K: int, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    ids_TK = torch.stack([torch.randperm(E, generator=generator)[:K] for _ in range(T)])
    weights_TK = torch.rand(T, K, generator=generator)
    stacked = randn(E, F, D) / 4, randn(E, F, D) / 4, randn(E, D, F) / 5
    return randn(T, D), ids_TK.sort(-1).values, weights_TK, *stacked


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(2, 12), st.data())
def test_equals_the_reference(T: int, E: int, data: st.DataObject) -> None:
    """With few tokens and many experts, most experts are empty."""
    case = inputs(T, E, data.draw(st.integers(1, E)))
    assert_close(experts(*case), experts_reference(*case), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chosen", [0, 3, 7])
def test_all_tokens_at_one_expert(chosen: int) -> None:
    """Empty experts before, after and on both sides of the one in use."""
    x, _, weights, *stacked = inputs(9, 8, 1)
    ids = torch.full((9, 1), chosen)
    assert_close(
        experts(x, ids, weights, *stacked),
        experts_reference(x, ids, weights, *stacked),
        atol=1e-5,
        rtol=1e-5,
    )


def test_bfloat16_stays_near_float32() -> None:
    """Three products of bf16 inputs: at most 3 roundings of 2**-9 each, plus that of the sum."""
    x, ids, weights, *stacked = inputs(50, 8, 3)
    low = experts(x.bfloat16(), ids, weights, *stacked)
    assert low.dtype == torch.bfloat16
    wide = experts_reference(x, ids, weights, *stacked)
    error = (low.float() - wide).norm() / wide.norm()
    assert error < 1e-2


def test_gradients() -> None:
    """Of inputs, gate weights and every expert; empty experts get exactly zero."""
    case = inputs(12, 8, 2)
    ids = case[1] % 6  # experts 6 and 7 stay empty
    ids = torch.stack((ids[:, 0].clamp(max=4), torch.full((12,), 5)), 1)
    leaves = [case[i].clone().requires_grad_() for i in (0, 2, 3, 4, 5)]

    def grads(function: object) -> tuple[Tensor, ...]:
        x, weights, *stacked = leaves
        out = function(x, ids, weights, *stacked)  # type: ignore[operator]
        return torch.autograd.grad((out * out.detach().cos()).sum(), leaves)

    found, expected = grads(experts), grads(experts_reference)
    for mine, reference in zip(found, expected, strict=True):
        assert_close(mine, reference, atol=1e-4, rtol=1e-4)  # sums over 12 rows of order ten
    for stacked in found[2:]:
        assert (stacked[6:] == 0).all()
        assert stacked[5].abs().max() > 0


def test_rows_do_not_depend_on_their_neighbours() -> None:
    """To rounding: the products' shapes differ, their sums are those of the row alone."""
    x, ids, weights, *stacked = inputs(20, 8, 3)
    together = experts(x, ids, weights, *stacked)
    alone = torch.cat(
        [experts(x[i : i + 1], ids[i : i + 1], weights[i : i + 1], *stacked) for i in range(20)]
    )
    assert_close(together, alone, atol=1e-5, rtol=1e-5)


def brute_force_choice(
    scores: list[float], bias: list[float], k: int, groups: int, topk_groups: int
) -> list[int]:
    """The best set of experts over all admissible sets of groups, by plain search."""
    ranked = [s + b for s, b in zip(scores, bias, strict=True)]
    size = len(ranked) // groups
    members = [list(range(g * size, (g + 1) * size)) for g in range(groups)]

    def worth(group: list[int]) -> float:
        return max(ranked[a] + ranked[b] for a, b in itertools.combinations(group, 2))

    kept = max(itertools.combinations(members, topk_groups), key=lambda sets: sum(map(worth, sets)))
    allowed = [e for group in kept for e in group]
    best = max(itertools.combinations(allowed, k), key=lambda ids: sum(ranked[e] for e in ids))
    return sorted(best)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(1, 1), (2, 1), (4, 2), (4, 1), (4, 4)]), st.data())
def test_choice_equals_brute_force(groups: tuple[int, int], data: st.DataObject) -> None:
    count, kept = groups
    k = data.draw(st.integers(1, kept * 8 // count))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    scores_TE = torch.rand(6, 8, generator=generator, dtype=torch.float64)
    # Negative sums are common: a masked group must lose to them.
    bias_E = torch.randn(8, generator=generator, dtype=torch.float64) * 2 - 1
    ids_TK = select_experts(scores_TE, bias_E, k, count, kept)
    for row, ids in zip(scores_TE.tolist(), ids_TK.tolist(), strict=True):
        assert ids == brute_force_choice(row, bias_E.tolist(), k, count, kept)


def test_bias_changes_the_choice_but_not_the_weights() -> None:
    scores_TE = torch.tensor([[0.9, 0.8, 0.2, 0.1]])
    bias_E = torch.tensor([-1.0, 0.0, 1.0, 0.0])
    plain = select_experts(scores_TE, torch.zeros(4), 2, 1, 1)
    biased = select_experts(scores_TE, bias_E, 2, 1, 1)
    assert plain.tolist() == [[0, 1]]
    assert biased.tolist() == [[1, 2]]
    assert_close(gate_weights(scores_TE, biased, True, 1.0), torch.tensor([[0.8, 0.2]]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.floats(0.5, 3.0), st.integers(0, 99))
def test_weights_sum_to_the_scaling_factor(k: int, scaling: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores_TE = torch.rand(5, 8, generator=generator)
    ids_TK = select_experts(scores_TE, torch.randn(8, generator=generator), k, 1, 1)
    assert (ids_TK.diff(dim=-1) > 0).all()  # ascending, none twice
    weights_TK = gate_weights(scores_TE, ids_TK, True, scaling)
    assert_close(weights_TK.sum(-1), torch.full((5,), scaling))
    unnormalised = gate_weights(scores_TE, ids_TK, False, scaling)
    assert torch.equal(unnormalised, scores_TE.gather(1, ids_TK) * scaling)


def test_load_counts_every_choice() -> None:
    ids_TK = torch.tensor([[0, 2], [2, 3], [0, 2]])
    assert expert_load(ids_TK, 6).tolist() == [2, 0, 3, 1, 0, 0]


def layer() -> MoE:
    found = tiny_model(k2_config()).layers[1].ffn
    assert isinstance(found, MoE)
    return found


def test_replay_gives_the_same_output_and_a_gate_gradient() -> None:
    moe = layer()
    x_TD = torch.randn(20, 64, generator=torch.Generator().manual_seed(3))
    out, routing = moe(x_TD)
    moe.router.bias.add_(torch.arange(8) * 10.0)  # would choose 6 and 7 for every token
    chosen_anew = moe(x_TD)[1]
    assert (chosen_anew.ids_TK == torch.tensor([6, 7])).all()
    replayed, again = moe(x_TD, routing.ids_TK)
    assert torch.equal(replayed, out)
    assert torch.equal(again.load_E, routing.load_E)
    gradient = torch.autograd.grad(replayed.square().sum(), moe.router.weight)[0]
    assert gradient.abs().max() > 0


def test_layer_equals_its_formula() -> None:
    """sum of w_i E_i(x), plus the shared expert, written out token by token."""
    moe = layer()
    x_TD = torch.randn(7, 64, generator=torch.Generator().manual_seed(3))
    out, routing = moe(x_TD)
    scores_TE = torch.sigmoid(x_TD @ moe.router.weight.T)
    for t in range(7):
        chosen = (scores_TE[t] + moe.router.bias).topk(2).indices
        assert sorted(chosen.tolist()) == routing.ids_TK[t].tolist()
        weights = scores_TE[t, chosen] / scores_TE[t, chosen].sum() * 1.409
        expected = moe.shared(x_TD[t])
        for e, weight in zip(chosen.tolist(), weights, strict=True):
            gate, up, down = (w[e] for w in (moe.experts.gate, moe.experts.up, moe.experts.down))
            hidden = torch.nn.functional.silu(gate @ x_TD[t]) * (up @ x_TD[t])
            expected = expected + weight * (down @ hidden)
        # Weights of 0.2 over 64 inputs make outputs of order 100: 1e-6 relative of the largest.
        assert_close(out[t], expected, atol=1e-3, rtol=1e-4)


def test_router_and_gate_weights_are_float32_in_a_bfloat16_layer() -> None:
    moe = layer()
    x_TD = torch.randn(30, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    scores_TE = moe.router(x_TD)
    assert scores_TE.dtype == torch.float32
    assert torch.equal(scores_TE, moe.router(x_TD.float()))
    out, routing = moe(x_TD)
    assert out.dtype == torch.bfloat16
    assert torch.equal(routing.ids_TK, moe(x_TD.float())[1].ids_TK)


@pytest.mark.parametrize("alignment", [1, 4, 64])
def test_dispatch_sorts_by_expert_and_pads_each_block(alignment: int) -> None:
    ids_TK = torch.rand(50, 9).topk(3, dim=-1).indices.sort(-1).values % 8
    ids_TK = ids_TK.sort(-1).values
    to = dispatch(ids_TK, 8, alignment)
    ends = to.ends_E.tolist()
    assert ends[-1] == len(to.slot_X)
    assert all(end % alignment == 0 for end in ends)
    assert sorted(to.places_TK.flatten().tolist() + to.padding_Z.tolist()) == list(range(ends[-1]))
    expert_X = torch.searchsorted(to.ends_E, torch.arange(ends[-1]), right=True)
    assert torch.equal(expert_X[to.places_TK], ids_TK)
    assert torch.equal(to.slot_X[to.places_TK.flatten()], torch.arange(ids_TK.numel()))


def test_padding_changes_neither_outputs_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, where only the number of rows in a product differs."""
    whole, padded = (dispatch, partial(dispatch, alignment=16))
    inputs = [torch.randn(20, 8), *(torch.randn(s) for s in ((5, 16, 8), (5, 16, 8), (5, 8, 16)))]
    weights_TK = torch.rand(20, 2)
    ids_TK = torch.rand(20, 5).topk(2, dim=-1).indices.sort(-1).values
    results = []
    for function in (whole, padded):
        monkeypatch.setattr(moe, "dispatch", lambda ids, count, _, f=function: f(ids, count))
        leaves = [x.clone().requires_grad_() for x in (*inputs, weights_TK)]
        out_TD = experts(leaves[0], ids_TK, leaves[4], *leaves[1:4])
        out_TD.square().sum().backward()
        results.append([out_TD.detach(), *(leaf.grad for leaf in leaves)])
    for one, other in zip(*results, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-5)
