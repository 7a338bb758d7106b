"""Merged slots against the definition in float64, and what must hold for any of them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from selenite.ops.slot_merging import (
    Merge,
    Scores,
    Slots,
    attention_sums,
    choose_kept,
    log_average,
    merge_slots,
    slot_logits,
)

H, W = 16, 12
SCALE = H**-0.5


def made(S: int, M: int = 1, G: int = 1, seed: int = 0, near: bool = True) -> Slots:
    """Slots of which some are alike."""
    rng = torch.Generator().manual_seed(seed)
    k_SMH = torch.randn(S, M, H, generator=rng)
    if near:
        centres = torch.randn(4, M, H, generator=rng) * 2
        k_SMH = centres[torch.randint(4, (S,), generator=rng)] + 0.4 * k_SMH
    v_SMW = torch.randn(S, M, W, generator=rng)
    return Slots(k_SMH, v_SMW, torch.zeros(S, M * G))


def queries(Q: int, N: int, seed: int = 1) -> Tensor:
    return torch.randn(Q, N, H, generator=torch.Generator().manual_seed(seed))


def rows(slots: Slots, numbers: list[int]) -> Slots:
    return Slots(slots.k_SMH[numbers], slots.v_SMW[numbers], slots.bias_SN[numbers])


def joined(a: Slots, b: Slots) -> Slots:
    return Slots(
        torch.cat((a.k_SMH, b.k_SMH)),
        torch.cat((a.v_SMW, b.v_SMW)),
        torch.cat((a.bias_SN, b.bias_SN)),
    )


def attention(q_NH: Tensor, slots: Slots) -> tuple[Tensor, Tensor]:
    """Output ``[N, W]`` and the logarithm of all mass ``[N]`` of one query, in float64."""
    G = len(q_NH) // slots.k_SMH.shape[1]
    k_SNH = slots.k_SMH.double().repeat_interleave(G, 1)
    v_SNW = slots.v_SMW.double().repeat_interleave(G, 1)
    logit_NS = torch.einsum("nh,snh->ns", q_NH.double(), k_SNH) * SCALE + slots.bias_SN.double().T
    return torch.einsum("ns,snw->nw", logit_NS.softmax(-1), v_SNW), logit_NS.logsumexp(-1)


def merged(
    slots: Slots,
    q_QNH: Tensor,
    kept: list[int],
    merge: Merge,
    likeness: float = -1.0,
    num_sinks: int = 0,
    decay: float = 1.0,
) -> tuple[Slots, int]:
    kept_MB = torch.tensor([kept] * slots.k_SMH.shape[1])
    return merge_slots(
        *(slots, Scores.of(q_QNH, slots, SCALE), kept_MB),
        merge=merge,
        likeness=likeness,
        num_sinks=num_sinks,
        decay=decay,
    )


@pytest.mark.parametrize("merge", ["bias", "zip"])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_scoring_query_sees_no_difference(merge: Merge, count: int) -> None:
    """Theorem 3 of the paper: one query, one head; whatever was merged."""
    slots, q_QNH = made(24), queries(1, 1)
    kept = list(range(count, 24))
    found, lost = merged(slots, q_QNH, kept, merge)
    assert lost == 0
    assert len(found.k_SMH) == 24 - count
    before, mass_before = attention(q_QNH[0], slots)
    after, mass_after = attention(q_QNH[0], found)
    assert_close(after, before, rtol=1e-5, atol=1e-6)
    assert_close(mass_after, mass_before, rtol=1e-5, atol=1e-6)


def test_zip_is_the_papers_formula_one_slot_after_another() -> None:
    """Written down in float64, with scores and not their logarithms."""
    slots, q_QNH = made(30, G=2, seed=14), queries(3, 2)
    kept = list(range(0, 30, 4))
    found, lost = merged(slots, q_QNH, kept, "zip")
    assert lost == 0
    logit_QGS = slot_logits(q_QNH, slots.k_SMH, SCALE).double()
    s_S = logit_QGS.exp().mean(1).mean(0)
    k_SH, v_SW = slots.k_SMH[:, 0].double(), slots.v_SMW[:, 0].double()
    p, s, k, v = ([x[row].clone() for row in kept] for x in (torch.ones(30), s_S, k_SH, v_SW))
    units = torch.nn.functional.normalize(slots.k_SMH[:, 0], dim=-1)
    for row in (row for row in range(30) if row not in kept):
        c = int((units[row] @ units[kept].T).argmax())
        w_e, w_c = s_S[row], p[c] * s[c]
        scale = ((w_e + w_c) / (1 + p[c])).log() / (
            (w_e * s_S[row].log() + w_c * s[c].log()) / (w_e + w_c)
        )
        k[c] = (w_e * k_SH[row] + w_c * k[c]) / (w_e + w_c) * scale
        v[c] = (w_e * v_SW[row] + w_c * v[c]) / (w_e + w_c)
        p[c], s[c] = p[c] + 1, (w_e + w_c) / (1 + p[c])
    assert_close(found.k_SMH[:, 0].double(), torch.stack(k), rtol=1e-4, atol=1e-4)
    assert_close(found.v_SMW[:, 0].double(), torch.stack(v), rtol=1e-4, atol=1e-4)
    assert_close(found.bias_SN[:, 1].exp(), torch.stack(p), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("merge", ["bias", "zip"])
def test_fifty_merges_one_after_another(merge: Merge) -> None:
    """Each scored by a query of its own time: the query that scored sees no difference."""
    slots = made(60, seed=2)
    for step in range(50):
        q_QNH = queries(1, 1, seed=step)
        before = attention(q_QNH[0], slots)[0]
        victim = step * 7 % len(slots.k_SMH)
        kept = [row for row in range(len(slots.k_SMH)) if row != victim]
        slots, lost = merged(slots, q_QNH, kept, merge)
        assert lost == 0
        assert_close(attention(q_QNH[0], slots)[0], before, rtol=1e-4, atol=1e-5)
    assert len(slots.k_SMH) == 10


def test_a_group_in_any_order_and_at_once_is_the_same_slot() -> None:
    slots, q_QNH = made(4, seed=3), queries(1, 1)
    at_once = merged(slots, q_QNH, [0], "bias")[0]
    for order in itertools.permutations(range(4)):
        own = rows(slots, [order[0]])
        for row in order[1:]:
            own, lost = merged(joined(own, rows(slots, [row])), q_QNH, [0], "bias")
            assert lost == 0
        assert_close(own.k_SMH, at_once.k_SMH, rtol=1e-5, atol=1e-6)
        assert_close(own.v_SMW, at_once.v_SMW, rtol=1e-5, atol=1e-6)
        assert_close(own.bias_SN, at_once.bias_SN, rtol=1e-5, atol=1e-5)


def test_a_bias_has_the_pairs_gradient_in_the_query() -> None:
    """What the merged slot is worth to other queries is right to first order; ZIP's is not."""
    slots, q_QNH = made(2, seed=4, near=False), queries(1, 1)
    gradients = dict[str, Tensor]()
    for name, own in (
        ("pair", slots),
        ("bias", merged(slots, q_QNH, [0], "bias")[0]),
        ("zip", merged(slots, q_QNH, [0], "zip")[0]),
    ):
        q_NH = q_QNH[0].double().requires_grad_()
        attention(q_NH, own)[1].sum().backward()
        assert q_NH.grad is not None
        gradients[name] = q_NH.grad
    assert_close(gradients["bias"], gradients["pair"], rtol=1e-5, atol=1e-6)
    assert float((gradients["zip"] - gradients["pair"]).norm()) > 1e-2


@pytest.mark.parametrize("merge", ["bias", "zip", "votes"])
def test_two_of_a_kind_are_one_of_two_votes_for_all_queries(merge: Merge) -> None:
    slots = made(6, seed=5)
    twin = rows(slots, [0, 1, 2, 3, 4, 4])
    found, _ = merged(twin, queries(1, 1), [0, 1, 2, 3, 4], merge, likeness=0.999)
    assert_close(found.k_SMH, twin.k_SMH[:5], rtol=1e-5, atol=1e-6)
    assert_close(found.bias_SN[4], torch.tensor([math.log(2)]), rtol=1e-5, atol=1e-5)
    for seed in range(5):
        q_NH = queries(1, 1, seed=100 + seed)[0]
        assert_close(attention(q_NH, found), attention(q_NH, twin), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("merge", ["zip", "votes"])
def test_votes_count_tokens(merge: Merge) -> None:
    slots, q_QNH = made(40, M=2, G=2, seed=6), queries(5, 4)
    kept = list(range(0, 40, 3))
    found, lost = merged(slots, q_QNH, kept, merge, likeness=0.98, num_sinks=4)
    votes_SM = found.bias_SN.exp()[:, ::2]
    assert 0 < lost < 2 * (40 - len(kept))
    assert float(votes_SM.sum()) == pytest.approx(2 * 40 - lost, rel=1e-5)
    assert float(votes_SM.min()) >= 1 - 1e-6
    again, more = merged(found, q_QNH, list(range(0, 14, 2)), merge, likeness=-1.0)
    assert more == 0
    assert float(again.bias_SN.exp()[:, ::2].sum()) == pytest.approx(2 * 40 - lost, rel=1e-5)


def test_a_bias_is_at_most_the_logarithm_of_its_tokens() -> None:
    slots, q_QNH = made(50, seed=7), queries(1, 1)
    kept = list(range(10))
    by_bias = merged(slots, q_QNH, kept, "bias")[0]
    by_votes = merged(slots, q_QNH, kept, "votes")[0]
    assert bool((by_bias.bias_SN <= by_votes.bias_SN + 1e-5).all())
    assert_close(by_bias.k_SMH, by_votes.k_SMH)


def test_each_head_of_a_group_keeps_its_mass() -> None:
    """Four heads share keys: with many queries their mean mass, with one query all of it."""
    slots, q_QNH = made(30, M=2, G=4, seed=8), queries(1, 8)
    found, lost = merged(slots, q_QNH, list(range(12)), "bias")
    assert lost == 0
    assert_close(attention(q_QNH[0], found)[1], attention(q_QNH[0], slots)[1], rtol=1e-5, atol=1e-5)
    many = queries(6, 8, seed=9)
    found, _ = merged(slots, many, list(range(12)), "bias")
    before = torch.stack([attention(q_NH, slots)[1] for q_NH in many])
    after = torch.stack([attention(q_NH, found)[1] for q_NH in many])
    # Shares of mass, by the queries' own totals.
    assert_close((after - before).exp().mean(0), torch.ones(8).double(), rtol=1e-4, atol=1e-4)


def test_heads_without_a_group_are_alone() -> None:
    slots, q_QNH = made(30, M=3, seed=10), queries(4, 3)
    together, _ = merged(slots, q_QNH, list(range(9)), "bias", likeness=0.5)
    for head in range(3):
        one = Slots(slots.k_SMH[:, [head]], slots.v_SMW[:, [head]], slots.bias_SN[:, [head]])
        alone, _ = merged(one, q_QNH[:, [head]], list(range(9)), "bias", likeness=0.5)
        assert_close(together.k_SMH[:, [head]], alone.k_SMH)
        assert_close(together.bias_SN[:, [head]], alone.bias_SN)


def test_nothing_is_merged_into_sinks_and_what_is_not_grown_keeps_its_bits() -> None:
    slots = made(30, seed=11)
    # The fifth is the first one's twin: it must go elsewhere, or nowhere.
    k_SMH = slots.k_SMH.clone()
    k_SMH[4] = k_SMH[0]
    slots = Slots(k_SMH, slots.v_SMW, slots.bias_SN)
    kept = [0, 1, 2, 3, *range(6, 30)]
    found, lost = merged(slots, queries(3, 1), kept, "bias", likeness=0.95, num_sinks=4)
    assert torch.equal(found.k_SMH[:4], slots.k_SMH[:4])
    assert torch.equal(found.bias_SN[:4], torch.zeros(4, 1))
    is_same = (found.bias_SN == 0)[:, 0]
    assert int(is_same.sum()) >= 26
    assert torch.equal(found.k_SMH[is_same], slots.k_SMH[kept][is_same])
    assert torch.equal(found.v_SMW[is_same], slots.v_SMW[kept][is_same])
    none, all_lost = merged(slots, queries(3, 1), kept, "bias", likeness=1.0, num_sinks=4)
    given_up, count = merged(slots, queries(3, 1), kept, "none")
    assert all_lost == count == 2
    assert torch.equal(none.k_SMH, given_up.k_SMH)
    assert not none.bias_SN.any()
    assert lost <= 2


def test_all_kept_is_all_as_it_was() -> None:
    slots = made(20, M=2, G=2, seed=12)
    for merge in ("bias", "zip", "votes", "none"):
        found, lost = merged(slots, queries(4, 4), list(range(20)), merge)
        assert lost == 0
        assert torch.equal(found.k_SMH, slots.k_SMH)
        assert torch.equal(found.v_SMW, slots.v_SMW)
        assert torch.equal(found.bias_SN, slots.bias_SN)


def test_scores_that_cancel_are_given_up_by_zip() -> None:
    """The pole of its scale: two scores whose weighted mean is nothing."""
    k_SMH = torch.zeros(2, 1, H)
    k_SMH[:, 0, 1] = 1.0
    slots = Slots(k_SMH, torch.ones(2, 1, W), torch.zeros(2, 1))
    q_QNH = torch.zeros(1, 1, H)
    q_QNH[0, 0, 0] = 1.0  # both logits are zero
    found, lost = merged(slots, q_QNH, [0], "zip")
    assert lost == 1
    assert torch.isfinite(found.k_SMH).all()
    assert torch.isfinite(merged(slots, q_QNH, [0], "bias")[0].bias_SN).all()


def test_means_over_queries_are_weighted_by_age() -> None:
    logits_QX = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) * 8
    for decay in (1.0, 0.9, 0.3):
        weight_Q = torch.tensor([decay ** (6 - i) for i in range(7)], dtype=torch.float64)
        if decay < 1:  # the paper's correction of what a sum over seven terms lacks
            assert float(weight_Q.sum() * (1 - decay)) == pytest.approx(1 - decay**7)
        expected = (weight_Q[:, None] * logits_QX.double().exp()).sum(0) / weight_Q.sum()
        assert_close(log_average(logits_QX, decay).double(), expected.log(), rtol=1e-5, atol=1e-5)
    # Products that no exponential in float32 could hold.
    assert torch.isfinite(log_average(torch.full((3, 2), 300.0), 0.9)).all()


@pytest.mark.parametrize("first", [0, 13])
def test_sums_are_of_all_rows(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slots, q_QNH = made(first + 20, M=2), queries(20, 4)
    expected = torch.zeros(2, first + 20, dtype=torch.float64)
    for row in range(20):
        seen = slots.k_SMH[: first + row + 1]
        mass_NS = slot_logits(q_QNH[[row]], seen, SCALE)[0].double().softmax(-1)
        expected[:, : len(seen)] += mass_NS.view(2, 2, -1).sum(1)
    for most in (1, 500, 1 << 22):  # a row at a time, a few, all
        monkeypatch.setattr("selenite.ops.slot_merging._LOGITS", most)
        found = attention_sums(q_QNH, slots.k_SMH, first, SCALE)
        assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    kept_MB = choose_kept(torch.zeros(1, 4, first + 20), 2, 10, 1, 2, "h2o", found)
    for head in range(2):
        best = sorted(range(1, first + 18), key=lambda s: -float(expected[head, s]))
        assert kept_MB[head].tolist() == sorted([0, *best[:7], first + 18, first + 19])


@pytest.mark.parametrize("keep", ["snapkv", "recent"])
@pytest.mark.parametrize("M", [1, 2])
def test_what_is_kept(keep: str, M: int) -> None:
    S, Q, N = 40, 6, 4
    slots = made(S, M=M, seed=13)
    logit_QNS = slot_logits(queries(Q, N), slots.k_SMH, SCALE)
    kept_MB = choose_kept(logit_QNS.softmax(-1), M, 15, 2, 5, keep)  # type: ignore[arg-type]
    mass_MS = logit_QNS.double().softmax(-1).sum(0).view(M, N // M, S).sum(1)
    for head in range(M):
        worth = [float(mass_MS[head, max(0, s - 2) : s + 3].sum()) for s in range(S)]
        middle = range(2, S - 5)
        best = sorted(middle, key=lambda s: -worth[s]) if keep == "snapkv" else middle[::-1]
        expected = sorted([0, 1, *best[:8], *range(S - 5, S)])
        assert kept_MB[head].tolist() == expected
