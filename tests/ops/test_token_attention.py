"""Decoding rows that choose tokens, against the definition in float64 with plain Python choices.

Slots that hold nothing are NaN, and so are all slots of pages that are nobody's.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from selenite.ops import native, token_attention
from selenite.ops.attention import attend, attend_reference, choose_attention
from selenite.ops.attention_context import (
    AttentionContext,
    BlockRouting,
    Pages,
    StatsRequest,
    TokenSelection,
)
from selenite.ops.token_attention import choose_tokens

both = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
shares = pytest.mark.parametrize("share", ["head", "group", "layer"])
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.2e-2}
SCALE = 0.3
PAGE = 4
Share = Literal["head", "group", "layer"]


class Nowhere:
    """A store that attention has no business with."""

    layout: Literal["latent", "expanded"] = "expanded"

    def write(self, layer: int, entry: tuple[Tensor, ...], slots_T: Tensor) -> None:
        raise AssertionError("attention never writes")

    def read(self, layer: int) -> tuple[Tensor, ...]:
        raise AssertionError("attention never reads the store")

    def pool(self, layer: int, pages_X: Tensor) -> None:
        raise AssertionError("attention never pools")

    def page_sums(self, layer: int) -> Tensor:
        raise AssertionError("nobody chooses blocks")


class Decoding:
    """Rows that decode, each over a sequence of its own, in shuffled pages; keys by layer."""

    def __init__(
        self,
        lengths: list[int],
        selections: list[TokenSelection | None],
        heads: tuple[int, int, int, int] = (4, 2, 8, 8),
        layers: int = 6,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        page: int = PAGE,
        stats: StatsRequest | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        N, M, H, W = heads
        counts = [-(-length // page) for length in lengths]
        spare = 3
        pages = random.Random(seed).sample(range(sum(counts) + spare), sum(counts))
        table = torch.full((len(lengths), max(counts)), -1)
        slots = []
        for i, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            own = torch.tensor(pages[sum(counts[:i]) : sum(counts[:i]) + count])
            table[i, :count] = own
            slots.append((own[:, None] * page + torch.arange(page)).flatten()[:length])
        size = (sum(counts) + spare) * page
        self.q = [
            torch.randn(len(lengths), N, H, generator=generator).to(dtype) for _ in range(layers)
        ]
        self.k = [torch.full((size, M, H), torch.nan, dtype=dtype) for _ in range(layers)]
        self.v = [torch.full((size, M, W), torch.nan, dtype=dtype) for _ in range(layers)]
        # What a sequence holds does not depend on the others.
        for i, own in enumerate(slots):
            inner = torch.Generator().manual_seed(1000 * seed + lengths[i])
            for layer in range(layers):
                self.q[layer][i] = torch.randn(N, H, generator=inner).to(dtype)
                self.k[layer][own] = torch.randn(len(own), M, H, generator=inner).to(dtype)
                self.v[layer][own] = torch.randn(len(own), M, W, generator=inner).to(dtype)
        self.slots = slots
        self.context = AttentionContext(
            torch.tensor(lengths) - 1,
            torch.arange(len(lengths)),
            tuple((i, i + 1, length - 1) for i, length in enumerate(lengths)),
            pages=Pages(page, table, tuple(lengths), torch.full((len(lengths),), -1), Nowhere()),
            selection=tuple(selections),
            stats=stats or StatsRequest(lse=True),
        )

    def run(self, reference: bool = False) -> list[tuple[Tensor, Tensor]]:
        """Output and log-sum-exps of each layer, in one step."""
        context = replace(self.context)  # nothing of another step
        function = attend_reference if reference else attend
        found = []
        for layer, operands in enumerate(zip(self.q, self.k, self.v, strict=True)):
            attended = function(*operands, context, SCALE, layer)
            assert attended.lse_TN is not None
            found.append((attended.out_TNW, attended.lse_TN))
        return found


def expected(case: Decoding) -> list[tuple[Tensor, Tensor]]:
    """By the definition, one row and head at a time."""
    selections = case.context.selection
    assert selections is not None
    found = []
    kept: dict[tuple[int, int], list[int]] = {}
    for layer, (q, k, v) in enumerate(zip(case.q, case.k, case.v, strict=True)):
        (T, N, _), M = q.shape, k.shape[1]
        out, lse = torch.empty(T, N, v.shape[2], dtype=torch.float64), torch.empty(T, N)
        for row in range(T):
            own, selection = case.slots[row], selections[row]
            if selection is not None and len(own) <= selection.budget:
                selection = None
            mass = {}
            for n in range(N):
                m = n * M // N
                logits = k[own, m].double() @ q[row, n].double() * SCALE
                mass[n] = logits.softmax(0).tolist()
                reads = list(range(len(own)))
                if selection and layer >= selection.layers[0] and layer not in selection.layers:
                    reads = kept[row, n]
                out[row, n] = logits[reads].softmax(0) @ v[own[reads], m].double()
                lse[row, n] = logits[reads].logsumexp(0)
            if selection and layer in selection.layers:
                sets = {"head": N, "group": M, "layer": 1}[selection.share]
                for one in range(sets):
                    heads = range(one * N // sets, (one + 1) * N // sets)
                    worth = [sum(mass[n][t] for n in heads) for t in range(len(own))]
                    always = {*range(selection.num_sinks)}
                    always |= {*range(len(own) - selection.num_recent, len(own))}
                    rest = sorted(
                        (t for t in range(len(own)) if t not in always), key=lambda t: -worth[t]
                    )
                    chosen = sorted([*always, *rest][: selection.budget])
                    kept.update({(row, n): chosen for n in heads})
        found.append((out, lse))
    return found


def check(case: Decoding, found: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> None:
    for (out, lse), (right, right_lse) in zip(found, expected(case), strict=True):
        assert_close(out.double(), right, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
        assert_close(lse, right_lse, atol=1e-5, rtol=1e-5)


@both
@shares
@pytest.mark.parametrize("reference", [False, True], ids=["fast", "reference"])
def test_it_is_the_definition(dtype: torch.dtype, share: Share, reference: bool) -> None:
    selection = TokenSelection(9, (1, 3), share, num_sinks=2, num_recent=3)
    case = Decoding([40, 11, 9, 3, 70], [selection] * 5, dtype=dtype)
    check(case, case.run(reference), dtype)


@shares
@pytest.mark.parametrize("heads", [(4, 4, 8, 8), (6, 1, 24, 16), (9, 3, 64, 64)], ids=str)
def test_any_heads(share: Share, heads: tuple[int, int, int, int]) -> None:
    """Without groups, latent attention's shape, SmolLM2's."""
    case = Decoding([90, 33], [TokenSelection(16, (0, 2), share)] * 2, heads, layers=4)
    check(case, case.run(), torch.float32)


@shares
def test_without_the_kernel(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Decoding([40, 11, 9], [TokenSelection(8, (1,), share)] * 3)
    with_kernel = case.run()
    monkeypatch.setattr(token_attention, "serves", lambda *_: False)
    without = case.run()
    check(case, without, torch.float32)
    for (out, _), (other, _) in zip(with_kernel, without, strict=True):
        assert_close(out, other, atol=1e-5, rtol=1e-5)


def test_rows_that_choose_stand_beside_rows_that_do_not() -> None:
    few, many = TokenSelection(6, (1, 4), num_sinks=1), TokenSelection(12, (2,), "head")
    case = Decoding([40, 35, 50, 9, 21], [few, None, many, few, many])
    check(case, case.run(), torch.float32)
    chosen = [
        choose_attention(case.q[layer], case.k[layer], case.v[layer], case.context, layer).value
        for layer in range(3)
    ]
    assert chosen[0] in ("paged", "segment")
    assert chosen[1:] == ["apart", "apart"]


def test_below_the_budget_nothing_is_chosen() -> None:
    """Bit for bit what rows without a selection compute."""
    selection = TokenSelection(12, (1,))
    case = Decoding([12, 7], [selection, selection])
    plain = Decoding([12, 7], [None, None])
    for (out, lse), (other, other_lse) in zip(case.run(), plain.run(), strict=True):
        assert torch.equal(out, other)
        assert torch.equal(lse, other_lse)
    one_more = Decoding([13, 7], [selection, selection])
    plain = Decoding([13, 7], [None, None])
    same = [
        torch.equal(out, other)
        for (out, _), (other, _) in zip(one_more.run(), plain.run(), strict=True)
    ]
    assert same[:2] == [True, True]
    assert not any(same[2:])


def test_where_all_layers_choose_all_is_read() -> None:
    case = Decoding([40, 25], [TokenSelection(8, (0, 1, 2, 3, 4, 5))] * 2)
    plain = Decoding([40, 25], [None, None])
    for (out, _), (other, _) in zip(case.run(), plain.run(), strict=True):
        assert torch.equal(out, other)


@shares
def test_neighbours_and_pages_change_nothing(share: Share) -> None:
    """Alone, in other company, and in pages of another size: the same bits."""
    selection = TokenSelection(10, (1, 3), share)
    alone = Decoding([37], [selection]).run()
    beside = Decoding([64, 37, 12], [None, selection, selection]).run()
    for (out, _), (other, _) in zip(alone, beside, strict=True):
        assert torch.equal(out[0], other[1])
    paged = Decoding([37], [selection], page=16).run()
    for (out, _), (other, _) in zip(alone, paged, strict=True):
        assert torch.equal(out, other)


@shares
def test_nor_do_neighbours_without_the_kernel(
    share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_attention, "serves", lambda *_: False)
    selection = TokenSelection(10, (1, 3), share)
    alone = Decoding([37], [selection]).run()
    beside = Decoding([64, 37, 12], [selection, selection, selection]).run()
    for (out, lse), (other, other_lse) in list(zip(alone, beside, strict=True))[1:]:
        assert torch.equal(out[0], other[1])
        assert torch.equal(lse[0], other_lse[1])


def test_a_step_knows_nothing_of_the_last() -> None:
    """What was chosen is the step's: a new record has to choose before it reads."""
    case = Decoding([40], [TokenSelection(8, (1,))])
    case.run()
    with pytest.raises(KeyError):
        attend(case.q[2], case.k[2], case.v[2], replace(case.context), SCALE, 2)


def test_chosen_tokens_are_the_row_s_own_and_hold_it() -> None:
    selection = TokenSelection(7, (0,), "head", num_sinks=2, num_recent=2)
    mass = torch.rand(3, 4, 50)
    positions = torch.tensor([49, 20, 7])
    chosen = choose_tokens(mass.clone(), positions, selection, 2)
    assert chosen.shape == (3, 4, 7)
    for row, own in enumerate(positions.tolist()):
        for places in chosen[row].tolist():
            assert places == sorted(set(places))
            assert places[:2] == [0, 1]
            assert places[-2:] == [own - 1, own]


def test_of_equal_ones_the_first() -> None:
    """Whatever lies behind, and however many there are."""
    selection = TokenSelection(5, (0,), num_sinks=0, num_recent=1)
    for length in (20, 64, 500):
        mass = torch.zeros(1, 2, length)
        mass[..., 15:] = 7.0  # behind the row
        chosen = choose_tokens(mass, torch.tensor([14]), selection, 1)
        assert chosen.tolist() == [[[0, 1, 2, 3, 14]]]


@shares
def test_of_equal_ones_the_first_by_the_kernel_too(share: Share) -> None:
    """Keys of zeros: all tokens are attended to alike, and values tell which were read."""
    case = Decoding([200, 65, 64, 12], [TokenSelection(9, (1,), share, 2, 3)] * 4)
    for k in case.k:
        k[~k.isnan()] = 0.0
    for (out, _), (expected_, _) in zip(case.run(), case.run(reference=True), strict=True):
        assert_close(out, expected_, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf])
def test_a_row_that_is_spoilt_harms_no_other(spoilt: float) -> None:
    selection = TokenSelection(9, (0, 2))
    clean = Decoding([40, 33, 70], [selection] * 3)
    case = Decoding([40, 33, 70], [selection] * 3)
    for q in case.q:
        q[1] = spoilt
    for (out, _), (right, _) in zip(case.run(), clean.run(), strict=True):
        assert torch.equal(out[[0, 2]], right[[0, 2]])
        assert not out[1].isfinite().all()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_step(data: st.DataObject) -> None:
    def drawn_selection() -> TokenSelection | None:
        if data.draw(st.booleans()):
            return None
        sinks, recent = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 4))
        layers = data.draw(st.sets(st.integers(0, 4), min_size=1, max_size=3))
        return TokenSelection(
            sinks + recent + data.draw(st.integers(0, 8)),
            tuple(sorted(layers)),
            data.draw(st.sampled_from(["head", "group", "layer"])),
            sinks,
            recent,
        )

    count = data.draw(st.integers(1, 5))
    lengths = data.draw(st.lists(st.integers(1, 60), min_size=count, max_size=count, unique=True))
    heads = data.draw(st.sampled_from([(4, 2, 8, 8), (2, 1, 8, 4), (3, 3, 5, 3)]))
    seed = data.draw(st.integers(0, 1000))
    selections = [drawn_selection() for _ in lengths]
    case = Decoding(lengths, selections, heads, layers=5, seed=seed)
    check(case, case.run(), torch.float32)


def test_blocks_and_tokens_are_not_chosen_by_one_row() -> None:
    case = Decoding([40], [TokenSelection(8, (1,))])
    context = replace(case.context, routing=(BlockRouting(4, 2),))
    with pytest.raises(AssertionError, match="chooses blocks and tokens"):
        attend(case.q[1], case.k[1], case.v[1], context, SCALE, 1)


@pytest.mark.skipif(not native.is_available(), reason="no kernel")
def test_a_long_context_is_read_rightly() -> None:
    """Ranges of keys that are merged at the end, and thousands of chosen ones."""
    case = Decoding([3000, 1100], [TokenSelection(700, (0,))] * 2, (9, 3, 64, 64), layers=2)
    check(case, case.run(), torch.float32)
    assert math.isfinite(float(case.run()[1][0].sum()))
