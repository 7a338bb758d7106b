"""Rows that choose blocks of keys (MoBA), with gradients: the reference and the path of training
against dense masks spelt out from the paper, and the special cases that the paper names.

Tolerances: values are of order one, and rows sum at most about 100 of them in float32, which
rounds at 6e-8; gradients of keys sum over as many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from selenite.ops import block_attention
from selenite.ops.attention import attend, attend_reference, choose_attention
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    BlockRouting,
    StatsRequest,
    packed_context,
)
from selenite.ops.block_attention import attend_blocks, attend_chosen
from selenite.ops.block_routing import choose_blocks
from selenite.ops.tiled_attention import attend_tiled
from tests.fixtures.moba import Choice, Text, choose, clear_text, dense

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
GRADIENT = {"atol": 1e-4, "rtol": 1e-4}
SCALE = 0.3
Rows = tuple[Tensor, Tensor, Tensor]
Shape = tuple[int, int, int, int]  # query heads, key/value heads, key width, value width
SHAPES: list[Shape] = [(4, 2, 8, 8), (4, 4, 8, 12), (6, 1, 12, 8), (3, 3, 5, 3)]
LENGTHS = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 70]))
BOTH = pytest.mark.parametrize("function", [attend_reference, attend], ids=["reference", "blocks"])
Function = Callable[[Tensor, Tensor, Tensor, AttentionContext, float], Attended]


@st.composite
def routings(draw: st.DrawFn, num_heads: int) -> BlockRouting:
    top_k = draw(st.integers(1, 5))
    return BlockRouting(
        block_size=draw(st.sampled_from([1, 2, 3, 4, 8, 16, 64])),
        top_k=top_k,
        has_sink=top_k > 1 and draw(st.booleans()),
        heads_together=draw(st.sampled_from([n for n in range(1, 7) if num_heads % n == 0])),
    )


@dataclass(frozen=True)
class Packed:
    """Documents laid one after another, and the context that says so."""

    texts: list[Text]
    context: AttentionContext

    @classmethod
    def of(cls, texts: list[Text], stats: StatsRequest | None = None) -> Packed:
        context = packed_context([len(text.q_LNH) for text in texts], stats)
        return cls(texts, replace(context, routing=tuple(text.routing for text in texts)))

    def rows(self, dtype: torch.dtype | None = None) -> Rows:
        """Queries, keys and values of all documents, as leaves."""
        parts = zip(*((t.q_LNH, t.k_LMH, t.v_LMW) for t in self.texts), strict=True)
        q_TNH, k_TMH, v_TMW = (torch.cat(part).to(dtype).requires_grad_() for part in parts)
        return q_TNH, k_TMH, v_TMW

    def dense(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, log-sum-exps and largest logits by the oracle."""
        found = []
        for text, (start, stop, _) in zip(self.texts, self.context.segments, strict=True):
            read_LNK = text.choice().read_LNK
            q_LNH, k_LMH, v_LMW = (x[start:stop] for x in rows)
            found.append(dense(q_LNH, k_LMH, v_LMW, read_LNK, SCALE))
        return (
            torch.cat([x.out_LNW for x in found]),
            torch.cat([x.lse_LN for x in found]),
            torch.cat([x.max_LN for x in found]).amax(0),
        )


def packed(
    lengths: list[int],
    shape: Shape,
    routing: BlockRouting,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Packed:
    texts = [clear_text(n, shape, routing, seed + 7 * i, dtype) for i, n in enumerate(lengths)]
    return Packed.of(texts, StatsRequest("exact", lse=True))


def weights_like(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)


def gradients(out_TNW: Tensor, rows: Rows, weights_TNW: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((out_TNW * weights_TNW.to(out_TNW.dtype)).sum(), rows)


def check(case: Packed, function: Function) -> None:
    """Value, log-sum-exp, largest logit and gradients against the oracle."""
    rows, wide = case.rows(), case.rows(torch.float64)
    found = function(*rows, case.context, SCALE)
    out_TNW, lse_TN, max_N = case.dense(wide)
    assert_close(found.out_TNW.double(), out_TNW, **CLOSE)
    assert found.lse_TN is not None
    assert found.max_logit_N is not None
    assert_close(found.lse_TN.double(), lse_TN, **CLOSE)
    assert_close(found.max_logit_N.double(), max_N, **CLOSE)
    weights_TNW = weights_like(out_TNW)
    expected = gradients(out_TNW, wide, weights_TNW)
    for ours, theirs in zip(gradients(found.out_TNW, rows, weights_TNW), expected, strict=True):
        assert_close(ours.double(), theirs, **GRADIENT)


# --- against the oracle


@pytest.mark.parametrize("function", [attend_reference, attend, attend_tiled])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_equals_the_papers_mask(function: Function, data: st.DataObject) -> None:
    """By the reference, the path of training, and tiles (of batch-invariant mode, here without)."""
    shape = data.draw(st.sampled_from(SHAPES))
    lengths = data.draw(st.lists(LENGTHS, min_size=1, max_size=3))
    routing = data.draw(routings(shape[0]))
    case = packed(lengths, shape, routing, data.draw(st.integers(0, 99)))
    # Documents that have no more blocks than are read are full attention's.
    is_long = {length > routing.top_k * routing.block_size for length in lengths}
    expected = "apart" if len(is_long) > 1 else "blocks" if True in is_long else "causal"
    assert choose_attention(*case.rows(), case.context).value == expected
    check(case, function)


@pytest.mark.parametrize("function", [attend_reference, attend, attend_tiled])
def test_documents_shorter_than_a_block(function: Function) -> None:
    """No block is whole: nothing to choose, and gradients all the same."""
    for routing in (BlockRouting(16, 3), BlockRouting(16, 1), BlockRouting(16, 2, has_sink=True)):
        check(packed([5, 1, 15], SHAPES[0], routing), function)


@pytest.mark.parametrize("function", [attend_reference, attend, attend_tiled])
@pytest.mark.parametrize("length", [8, 40, 48])
def test_whole_blocks_and_no_other_block(function: Function, length: int) -> None:
    """Where the last rows of a tile of queries are no rows, and would have no key to read."""
    check(packed([length], SHAPES[0], BlockRouting(8, 1)), function)


@pytest.mark.parametrize("together", [1, 2, 4])
@pytest.mark.parametrize("sink", [False, True])
def test_many_tiles_of_rows_that_chose_a_block(sink: bool, together: int) -> None:
    """More rows to a block than a tile holds."""
    check(packed([520, 90], SHAPES[0], BlockRouting(64, 3, sink, together)), attend)


def test_sequences_that_choose_otherwise_side_by_side() -> None:
    """Full attention, and two kinds of choice, in one step; the bound is a row's log-sum-exp."""
    ways = [BlockRouting(4, 2), None, BlockRouting(8, 3, True, 2), BlockRouting(4, 2), None]
    texts = [clear_text(n, SHAPES[0], way, n) for n, way in zip((30, 9, 41, 12, 20), ways)]  # noqa: B905
    case = Packed.of(texts, StatsRequest("exact", lse=True))
    assert choose_attention(*case.rows(), case.context).value == "apart"
    for function in (attend, attend_reference, attend_tiled):
        check(case, function)
    bound = replace(case.context, stats=StatsRequest("bound"))
    expected = case.dense(case.rows())[1].amax(0)
    for function in (attend, attend_reference, attend_tiled):
        assert_close(function(*case.rows(), bound, SCALE).max_logit_N.double(), expected, **CLOSE)  # type: ignore[union-attr]


def test_full_layers_read_everything() -> None:
    case = packed([40], SHAPES[0], BlockRouting(4, 2, full_layers=(1,)))
    rows = case.rows()
    full = attend(*rows, replace(case.context, routing=None), SCALE).out_TNW
    for function in (attend, attend_reference, attend_tiled):
        assert_close(function(*rows, case.context, SCALE, 1).out_TNW, full, **CLOSE)
        other = function(*rows, case.context, SCALE, 0).out_TNW
        assert (other - full).abs().max() > 0.05


@pytest.mark.parametrize("together", [1, 4])
def test_without_torchs_flash_kernel(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on other devices, run here."""
    case = packed([70, 33, 5], SHAPES[0], BlockRouting(8, 3, together > 1, together))
    assert block_attention._has_flash(case.rows()[0])
    monkeypatch.setattr(block_attention, "_has_flash", lambda q: False)
    check(case, attend)


@pytest.mark.parametrize("path", ["flash", "plain"])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_bfloat16(shape: Shape, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts, outputs and gradients are rounded to 8 bits. Means are float32, so that bfloat16
    inputs choose as the oracle does wherever the choice is not close."""
    if path == "plain":
        monkeypatch.setattr(block_attention, "_has_flash", lambda q: False)
    texts = [
        clear_text(n, shape, BlockRouting(8, 3), n, torch.bfloat16, gap=1e-3) for n in (70, 33)
    ]
    case = Packed.of(texts, StatsRequest("exact", lse=True))
    rows, wide = case.rows(), case.rows(torch.float64)
    found = attend(*rows, case.context, SCALE)
    out_TNW, lse_TN, max_N = case.dense(wide)
    assert found.out_TNW.dtype == torch.bfloat16
    assert_close(found.out_TNW.double(), out_TNW, atol=0.02, rtol=0.02)
    assert found.lse_TN is not None
    assert found.max_logit_N is not None
    assert found.lse_TN.dtype == torch.float32
    logit = {"atol": 1e-4, "rtol": 1e-4} if path == "flash" else {"atol": 0.01, "rtol": 0.01}
    assert_close(found.lse_TN.double(), lse_TN, **logit)
    assert_close(found.max_logit_N.double(), max_N, **CLOSE)
    weights_TNW = weights_like(out_TNW).bfloat16()
    expected = gradients(out_TNW, wide, weights_TNW)
    for ours, theirs in zip(gradients(found.out_TNW, rows, weights_TNW), expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert_close(ours.double(), theirs, atol=0.06, rtol=0.03)


# --- fixed choices


def chosen_of(read_LNK: Tensor, block_size: int, together: int = 1) -> Tensor:
    """Fixed choices from a mask: blocks before the own one, ascending, and -1 behind them."""
    L, N, K = read_LNK.shape
    n = -(-K // block_size)
    is_read_LNn = torch.stack([x.any(-1) for x in read_LNK.split(block_size, 2)], -1)
    is_read_LNn &= torch.arange(n) < (torch.arange(L) // block_size)[:, None, None]
    block_LCn = torch.where(is_read_LNn[:, ::together], torch.arange(n), n).sort(-1).values
    return block_LCn.masked_fill(block_LCn == n, -1)[..., : int(is_read_LNn.sum(-1).max())]


@pytest.mark.parametrize("path", ["flash", "plain"])
@pytest.mark.parametrize("shape", [(4, 2, 1, 2), (2, 1, 2, 1)])
def test_gradcheck_of_fixed_choices(
    shape: Shape, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "plain":
        monkeypatch.setattr(block_attention, "_has_flash", lambda q: False)
    routing = BlockRouting(2, 2, heads_together=2)
    texts = [clear_text(n, shape, routing, n, torch.float64) for n in (6, 3)]
    case = Packed.of(texts)
    chosen = [chosen_of(text.choice().read_LNK, 2, together=2) for text in texts]

    def out(*rows: Tensor) -> Tensor:
        return attend_chosen(*rows, case.context, SCALE, 2, chosen).out_TNW

    rows = case.rows()
    assert_close(out(*rows), case.dense(rows)[0], atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(out, rows)


def window(length: int, blocks: int, block_size: int, has_sink: bool) -> Tensor:
    """A token reads its block and those just before it, ``blocks`` in all, and perhaps the
    first."""
    token_L, key_K = torch.arange(length)[:, None], torch.arange(length)
    distance_LK = token_L // block_size - key_K // block_size
    near_LK = distance_LK < blocks
    if has_sink:
        near_LK = near_LK | (key_K < block_size)
    return near_LK & (key_K <= token_L)


@pytest.mark.parametrize("has_sink", [False, True], ids=["sliding window", "attention sink"])
def test_patterns_that_the_paper_calls_special_cases(has_sink: bool) -> None:
    text = clear_text(75, SHAPES[0], None)
    read_LK = window(75, 3, 8, has_sink)
    chosen = chosen_of(read_LK[:, None].expand(75, 4, 75), 8)
    case = Packed.of([text])
    rows = case.rows()
    found = attend_chosen(*rows, replace(case.context, routing=None), SCALE, 8, [chosen]).out_TNW
    expected = masked(rows, read_LK)
    assert_close(found, expected, **CLOSE)
    weights = weights_like(found)
    for ours, theirs in zip(
        gradients(found, rows, weights), gradients(expected, rows, weights), strict=True
    ):
        assert_close(ours, theirs, **GRADIENT)


# --- equal to torch's attention where the definition says so


def by_blocks(
    q_TNH: Tensor, k_TMH: Tensor, v_TMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """The path of blocks also where ``attend`` sees that nothing is left out."""
    assert context.routing is not None
    (routing,) = {*context.routing}
    assert routing is not None
    return attend_blocks(q_TNH, k_TMH, v_TMW, context, scale, 0, routing)


def masked(rows: Rows, read_LK: Tensor) -> Tensor:
    """torch's own attention with a mask for all heads."""
    q, k, v = (x.transpose(0, 1) for x in rows)
    group = len(q) // len(k)
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=read_LK, scale=SCALE)
    return out.transpose(0, 1)


@pytest.mark.parametrize("function", [attend_reference, attend, attend_tiled, by_blocks])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("block_size", "top_k", "is_local"),
    [
        pytest.param(8, 8, False, id="as many blocks as there are"),
        pytest.param(8, 100, False, id="more blocks than there are"),
        pytest.param(61, 2, False, id="one block of all tokens"),
        pytest.param(61, 1, False, id="one block of all tokens, and no other"),
        pytest.param(1000, 3, False, id="a block longer than the document"),
        pytest.param(1, 61, False, id="blocks of one token"),
        pytest.param(8, 1, True, id="no block but the own"),
    ],
)
def test_special_cases(
    function: Function, block_size: int, top_k: int, is_local: bool, shape: Shape
) -> None:
    """Full causal attention, and attention within blocks."""
    case = Packed.of([clear_text(61, shape, BlockRouting(block_size, top_k))])
    rows = case.rows()
    found = function(*rows, case.context, SCALE).out_TNW
    read_LK = window(61, 1 if is_local else 1000, block_size, has_sink=False)
    expected = masked(rows, read_LK)
    assert_close(found, expected, **CLOSE)
    weights = weights_like(found)
    for ours, theirs in zip(
        gradients(found, rows, weights), gradients(expected, rows, weights), strict=True
    ):
        assert_close(ours, theirs, **GRADIENT)


@pytest.mark.parametrize(("block_size", "top_k"), [(8, 9), (1, 70), (64, 2), (100, 2)])
def test_all_blocks_in_bfloat16(block_size: int, top_k: int) -> None:
    """Parts are rounded to 8 bits before they are joined."""
    text = clear_text(70, SHAPES[0], BlockRouting(block_size, top_k), 0, torch.bfloat16, gap=0)
    case = Packed.of([text])
    found = by_blocks(*case.rows(), case.context, SCALE).out_TNW
    expected = masked(case.rows(torch.float32), window(70, 1000, 8, has_sink=False))
    assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("most", [1, 3000])
def test_squares_a_few_at_a_time(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on devices without a flash kernel, where logits take memory."""
    monkeypatch.setattr(block_attention, "_has_flash", lambda q: False)
    monkeypatch.setattr(block_attention, "_MOST_LOGITS", most)
    check(packed([70, 33, 5], SHAPES[0], BlockRouting(8, 3)), attend)


# --- what is read


@BOTH
@pytest.mark.parametrize(("sink", "together"), [(False, 1), (True, 1), (False, 4)])
def test_a_rows_gradient_touches_what_it_reads_and_nothing_else(
    function: Function, sink: bool, together: int
) -> None:
    """Not the later keys of its own block, whose mean is therefore not used, and not the blocks
    that were scored and left out: the choice has no gradient."""
    text = clear_text(45, SHAPES[0], BlockRouting(8, 3, sink, together))
    case, read_LNK = Packed.of([text]), text.choice().read_LNK
    rows = case.rows()
    out = function(*rows, case.context, SCALE).out_TNW
    for row in (0, 7, 8, 23, 24, 40, 44):
        of_heads = read_LNK[row].view(2, 2, 45).any(1)
        for x in rows[1 + (row == 0) :]:  # the weight of a single key is 1, whatever the key
            (gradient,) = torch.autograd.grad(out[row].square().sum(), x, retain_graph=True)
            assert torch.equal(gradient.abs().amax(2).T > 0, of_heads), row


@BOTH
@pytest.mark.parametrize("token", [0, 15, 16, 30, 39])
def test_later_tokens_change_nothing_before(function: Function, token: int) -> None:
    """Not even ones so large that every row would choose their block."""
    case = Packed.of([clear_text(40, SHAPES[0], BlockRouting(8, 2))])
    rows = [x.detach() for x in case.rows()]
    before = function(*rows, case.context, SCALE).out_TNW
    changed = [x.clone() for x in rows]
    for x in changed:
        x[token] = 50 * x[token] + 3
    after = function(*changed, case.context, SCALE).out_TNW
    assert_close(after[:token], before[:token], atol=1e-6, rtol=1e-6)
    assert (after[token] - before[token]).abs().min() > 0


@BOTH
@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("top_k", [2, 3, 6])
def test_ties_and_rows_with_few_blocks_before_them(
    function: Function, top_k: int, sink: bool, together: int
) -> None:
    """Keys of zeros: all scores are equal, and the log-sum-exp is that of the number of keys read.
    It is exactly ``top_k`` blocks, or as many as there are."""
    text = clear_text(60, SHAPES[0], BlockRouting(8, top_k, sink, together))
    case = Packed.of([replace(text, k_LMH=torch.zeros_like(text.k_LMH))], StatsRequest(lse=True))
    token_L = torch.arange(60)
    count_L = (token_L // 8).clamp(max=top_k - 1) * 8 + token_L % 8 + 1
    lse_TN = function(*case.rows(), case.context, SCALE).lse_TN
    assert lse_TN is not None
    assert_close(lse_TN.exp(), count_L[:, None].expand(60, 4).float(), **CLOSE)


@pytest.mark.parametrize("sink", [False, True])
def test_choices_are_distinct_and_ascend(sink: bool) -> None:
    """And rows with fewer blocks before them have -1 behind those."""
    means_nMH = torch.zeros(7, 2, 8)
    means_nMH[3] = means_nMH[5] = 1.0  # two equal blocks before the rest, which is equal too
    position_T = torch.arange(60)
    chosen_TCK = choose_blocks(
        torch.ones(60, 4, 8), means_nMH, position_T, BlockRouting(8, 4, sink)
    )
    assert chosen_TCK.shape == (60, 4, 3)
    for position, chosen_CK in zip(position_T.tolist(), chosen_TCK, strict=True):
        own = position // 8
        for choice_K in chosen_CK.tolist():
            blocks = [block for block in choice_K if block >= 0]
            assert choice_K == sorted(set(blocks)) + [-1] * (3 - len(blocks))
            assert len(blocks) == min(own, 3)
            assert all(block < own for block in blocks)
            assert {block for block in (3, 5) if block < own} <= set(blocks)
            assert not sink or own == 0 or 0 in blocks


@pytest.mark.parametrize("together", [1, 2])
def test_the_choice_does_not_depend_on_later_blocks(together: int) -> None:
    """However many have been scored beside those that a row may choose, as in other chunks or with
    longer neighbours: not even among blocks with the same score."""
    generator = torch.Generator().manual_seed(0)
    q_TNH = torch.randn(60, 4, 8, generator=generator)
    means_nMH = torch.randn(3, 2, 8, generator=generator).repeat(100, 1, 1)
    for top_k in (2, 3, 5):
        routing = BlockRouting(8, top_k, heads_together=together)
        position_T = torch.arange(60) + 40
        found = [
            choose_blocks(q_TNH, means_nMH[:n], position_T, routing) for n in (12, 13, 20, 64, 300)
        ]
        for other in found[1:]:
            assert torch.equal(other, found[0])


def test_the_oracle_itself() -> None:
    """By hand: two blocks of two tokens before the last; the query wants the second one."""
    k_LMH = torch.tensor([1.0, 1.0, 2.0, 4.0, -9.0])[:, None, None]
    q_LNH = torch.ones(5, 1, 1)
    found: Choice = choose(q_LNH, k_LMH, BlockRouting(2, 2))
    assert found.read_LNK[:, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    assert found.gap == 2.0
    sunk = choose(q_LNH, k_LMH, BlockRouting(2, 2, has_sink=True)).read_LNK[4, 0]
    assert sunk.int().tolist() == [1, 1, 0, 0, 1]
    opposed = torch.cat((q_LNH, -1.5 * q_LNH), 1)  # the second head alone prefers the first block
    apart = choose(opposed, k_LMH, BlockRouting(2, 2)).read_LNK[4].int().tolist()
    assert apart == [[0, 0, 1, 1, 1], [1, 1, 0, 0, 1]]
    together = choose(opposed, k_LMH, BlockRouting(2, 2, heads_together=2)).read_LNK[4]
    assert together.int().tolist() == [[1, 1, 0, 0, 1]] * 2


# --- documents


@BOTH
def test_packed_documents_equal_documents_alone(function: Function) -> None:
    case = packed([21, 40, 7, 64], SHAPES[0], BlockRouting(8, 3))
    together = function(*case.rows(), case.context, SCALE)
    single = [Packed.of([text], case.context.stats) for text in case.texts]
    alone = [function(*one.rows(), one.context, SCALE) for one in single]
    assert_close(together.out_TNW, torch.cat([x.out_TNW for x in alone]), **CLOSE)
    assert_close(together.lse_TN, torch.cat([x.lse_TN for x in alone]), **CLOSE)
    maxima = torch.stack([x.max_logit_N for x in alone])  # type: ignore[misc]
    assert_close(together.max_logit_N, maxima.amax(0), **CLOSE)


Tree = tuple[int, list[int]]  # rows of a beginning, and of what goes on from it


def shared_context(
    known: list[Tree], routing: BlockRouting, stats: StatsRequest
) -> AttentionContext:
    segments, prefixes = list[tuple[int, int, int]](), list[int]()
    row = 0
    for beginning, continuations in known:
        prefix = len(segments)
        for length, first, of in [
            (beginning, 0, -1),
            *((c, beginning, prefix) for c in continuations),
        ]:
            segments.append((row, row + length, first))
            prefixes.append(of)
            row += length
    return AttentionContext(
        torch.cat([torch.arange(first, first + b - a) for a, b, first in segments]),
        torch.cat([torch.full((b - a,), i) for i, (a, b, _) in enumerate(segments)]),
        tuple(segments),
        shared_prefix=tuple(prefixes),
        routing=(routing,) * len(segments),
        stats=stats,
    )


def whole_documents(context: AttentionContext) -> list[Tensor]:
    """Rows of each document with its beginning, which counts as a document itself."""
    found = []
    assert context.shared_prefix is not None
    for (start, stop, _), prefix in zip(context.segments, context.shared_prefix, strict=True):
        before = torch.arange(*context.segments[prefix][:2]) if prefix >= 0 else torch.arange(0)
        found.append(torch.cat((before, torch.arange(start, stop))))
    return found


@BOTH
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_shared_prefixes_equal_whole_documents(function: Function, data: st.DataObject) -> None:
    """Blocks go on across the end of a beginning, which may be in the middle of one."""
    shape = data.draw(st.sampled_from(SHAPES[:3]))
    parts = st.one_of(st.integers(1, 20), st.sampled_from([8, 16, 64]))
    tree = st.tuples(parts, st.lists(parts, max_size=3))
    known = data.draw(st.lists(tree, min_size=1, max_size=2))
    routing = data.draw(routings(shape[0]))
    context = shared_context(known, routing, StatsRequest("exact", lse=True))
    T, documents = len(context.positions_T), whole_documents(context)
    gap, seed = 0.0, data.draw(st.integers(0, 99))
    while gap < 1e-4:  # as in ``clear_text``
        seed += 1000
        text = clear_text(T, shape, None, seed)
        gap = min(choose(text.q_LNH[i], text.k_LMH[i], routing).gap for i in documents)
    rows = (text.q_LNH.requires_grad_(), text.k_LMH.requires_grad_(), text.v_LMW.requires_grad_())
    if function is attend:
        assert choose_attention(*rows, context).value == "blocks"
    found = function(*rows, context, SCALE)
    outs, lses, maxima = [], [], []
    for document, (start, stop, _) in zip(documents, context.segments, strict=True):
        parts_ = [x[document].double() for x in rows]
        read_LNK = choose(parts_[0], parts_[1], routing).read_LNK
        whole = dense(parts_[0], parts_[1], parts_[2], read_LNK, SCALE)
        own = slice(len(document) - (stop - start), None)
        outs.append(whole.out_LNW[own])
        lses.append(whole.lse_LN[own])
        maxima.append(whole.max_LN[own])
    out_TNW = torch.cat(outs)
    assert_close(found.out_TNW.double(), out_TNW, **CLOSE)
    assert found.lse_TN is not None
    assert found.max_logit_N is not None
    assert_close(found.lse_TN.double(), torch.cat(lses), **CLOSE)
    assert_close(found.max_logit_N.double(), torch.cat(maxima).amax(0), **CLOSE)
    weights = weights_like(found.out_TNW)
    expected = gradients(out_TNW, rows, weights)
    for ours, theirs in zip(gradients(found.out_TNW, rows, weights), expected, strict=True):
        assert_close(ours, theirs, **GRADIENT)
