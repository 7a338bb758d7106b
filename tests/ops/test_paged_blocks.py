"""Rows that choose blocks of cached keys, by our kernel over pages, against the reference.

Slots that hold nothing are NaN, and so are the sums of pages that are not full. Tolerances are
those of ``test_paged_attention.py``; what is joined of parts is rounded once more.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from selenite.model.attention import cached
from selenite.model.cache import EntryCache
from selenite.ops import native, paged_blocks
from selenite.ops.attention import attend, attend_reference, choose_attention
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    BlockRouting,
    Pages,
    StatsRequest,
)
from selenite.ops.paged_attention import attend_paged, serves
from selenite.ops.paged_blocks import FEW_ROWS
from selenite.ops.tiled_attention import attend_tiled
from tests.fixtures.dense_attention import Heads, paged_case
from tests.fixtures.moba import Text, clear_text
from tests.fixtures.tiny import k2_config, llama_config

needs_kernel = pytest.mark.skipif(
    not native.is_available(), reason=f"no kernel: {native.availability().reason}"
)
both = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
OUT_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.2e-2}  # of the largest value
LSE_TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 1e-5}
SCALE = 0.3
SHAPES = [(4, 2, 8, 8), (6, 1, 24, 16), (4, 4, 12, 8), (16, 2, 8, 8), (3, 3, 5, 3)]


class Sums:
    """Sums of full pages, made of the keys; those of other pages are NaN."""

    layout: Literal["latent", "expanded"] = "expanded"

    def __init__(self, sums_PMH: Tensor) -> None:
        self.sums_PMH = sums_PMH

    def write(self, layer: int, entry: tuple[Tensor, ...], slots_T: Tensor) -> None:
        raise AssertionError("attention never writes")

    def read(self, layer: int) -> tuple[Tensor, ...]:
        raise AssertionError("attention never reads the store")

    def pool(self, layer: int, pages_X: Tensor) -> None:
        raise AssertionError("attention never pools")

    def page_sums(self, layer: int) -> Tensor:
        return self.sums_PMH


@dataclass(frozen=True)
class Step:
    """Inputs of ``attend``."""

    q_TNH: Tensor
    k_SMH: Tensor
    v_SMW: Tensor
    context: AttentionContext

    def run(self) -> Attended:
        return attend(self.q_TNH, self.k_SMH, self.v_SMW, self.context, SCALE)

    def reference(self) -> Attended:
        q_TNH, k_SMH, v_SMW = (x.float() for x in (self.q_TNH, self.k_SMH, self.v_SMW))
        return attend_reference(q_TNH, k_SMH, v_SMW, self.context, SCALE)

    def path(self) -> str:
        return choose_attention(self.q_TNH, self.k_SMH, self.v_SMW, self.context).value


def step(texts: list[Text], spans: list[range], page_size: int, placement: int = 0) -> Step:
    """Some tokens of each text, after those before them, on pages in a shuffled order."""
    _, M, H = texts[0].k_LMH.shape
    dtype, W = texts[0].k_LMH.dtype, texts[0].v_LMW.shape[2]
    counts = [-(-span.stop // page_size) for span in spans]
    free = list(range(sum(counts) + 2))
    random.Random(placement).shuffle(free)
    k_PZMH = torch.full((len(free), page_size, M, H), torch.nan, dtype=dtype)
    v_PZMW = torch.full((len(free), page_size, M, W), torch.nan, dtype=dtype)
    k_SMH, v_SMW = k_PZMH.flatten(0, 1), v_PZMW.flatten(0, 1)
    table_BP = torch.full((len(spans), max(counts) + 1), -1)
    segments, writes, row = list[tuple[int, int, int]](), list[Tensor](), 0
    for b, (text, span) in enumerate(zip(texts, spans, strict=True)):
        table_BP[b, : counts[b]] = torch.tensor([free.pop() for _ in range(counts[b])])
        offsets = torch.arange(page_size)
        slots_K = (table_BP[b, : counts[b], None] * page_size + offsets).flatten()[: span.stop]
        k_SMH[slots_K], v_SMW[slots_K] = text.k_LMH[: span.stop], text.v_LMW[: span.stop]
        segments.append((row, row + len(span), span.start))
        writes.append(slots_K[span.start :])
        row += len(span)
    context = AttentionContext(
        torch.cat([torch.arange(span.start, span.stop) for span in spans]),
        torch.cat([torch.full((len(span),), b) for b, span in enumerate(spans)]),
        tuple(segments),
        pages=Pages(
            page_size,
            table_BP,
            tuple(span.stop for span in spans),
            torch.cat(writes),
            Sums(k_PZMH.float().sum(1)),
        ),
        routing=tuple(text.routing for text in texts),
        stats=StatsRequest(lse=True),
    )
    q_TNH = torch.cat([t.q_LNH[span.start : span.stop] for t, span in zip(texts, spans)])  # noqa: B905
    return Step(q_TNH, k_SMH, v_SMW, context)


def check(case: Step) -> None:
    ours, expected = case.run(), case.reference()
    assert ours.out_TNW.dtype == case.q_TNH.dtype
    close(ours.out_TNW, expected.out_TNW, OUT_TOLERANCE[case.q_TNH.dtype])
    close(ours.lse_TN, expected.lse_TN, LSE_TOLERANCE[case.q_TNH.dtype])


def close(ours: Tensor | None, expected: Tensor | None, tolerance: float) -> None:
    assert ours is not None
    assert expected is not None
    largest = max(1.0, float(expected.abs().max()))
    assert_close(ours.float(), expected, rtol=0, atol=tolerance * largest)


@st.composite
def ways(draw: st.DrawFn, num_heads: int, page_size: int) -> BlockRouting:
    top_k = draw(st.integers(1, 4))
    return BlockRouting(
        page_size * draw(st.sampled_from([1, 2, 4])),
        top_k,
        top_k > 1 and draw(st.booleans()),
        draw(st.sampled_from([n for n in (1, 2, 3, 4, 8, 16) if num_heads % n == 0])),
    )


# --- against the reference


@needs_kernel
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rows_over_pages(data: st.DataObject) -> None:
    """Few and many rows, with and without choice, that choose alike and otherwise."""
    shape = data.draw(st.sampled_from(SHAPES))
    page_size = data.draw(st.sampled_from([1, 3, 4, 16]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    pool = data.draw(st.lists(ways(shape[0], page_size), min_size=1, max_size=2))
    pool += [None] if data.draw(st.booleans()) else []  # type: ignore[list-item]
    texts, spans = [], []
    for i in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.one_of(st.integers(0, 9), st.sampled_from([15, 16, 47, 64, 100])))
        new = data.draw(st.sampled_from([1, 2, FEW_ROWS, FEW_ROWS + 1, 20]))
        spans.append(range(first, first + new))
        routing = data.draw(st.sampled_from(pool))
        texts.append(clear_text(first + new, shape, routing, i, dtype))
    case = step(texts, spans, page_size, data.draw(st.integers(0, 9)))
    # Sequences that have no more blocks than are read are full attention's.
    kinds = {
        None if way is None or span.stop <= way.top_k * way.block_size else way
        for way, span in zip([text.routing for text in texts], spans, strict=True)
    }
    expected = "apart" if len(kinds) > 1 else "paged" if None in kinds else "paged_blocks"
    assert case.path() == expected
    check(case)


@both
@pytest.mark.parametrize("page_size", [4, 6])
def test_tiles_over_pages(page_size: int, dtype: torch.dtype) -> None:
    """Of batch-invariant mode, here without it; with blocks of whole pages and of no whole ones."""
    ways_ = (BlockRouting(8, 3), BlockRouting(16, 2, True, 2), None, BlockRouting(8, 3))
    spans = [range(70, 71), range(30, 90), range(5, 20), range(20)]
    texts = [clear_text(s.stop, SHAPES[0], way, s.stop, dtype) for s, way in zip(spans, ways_)]  # noqa: B905
    case = step(texts, spans, page_size)
    found = attend_tiled(case.q_TNH, case.k_SMH, case.v_SMW, case.context, SCALE)
    expected = case.reference()
    close(found.out_TNW, expected.out_TNW, OUT_TOLERANCE[dtype])
    close(found.lse_TN, expected.lse_TN, LSE_TOLERANCE[dtype])


@needs_kernel
@both
@pytest.mark.parametrize("together", [1, 4, 12])
@pytest.mark.parametrize("spans", [[(0, 90)], [(60, 3), (89, 1)], [(33, 40), (70, 1), (25, 1)]])
def test_latent_entries(spans: list[tuple[int, int]], together: int, dtype: torch.dtype) -> None:
    """One key/value head, whose values are the first columns of its keys: a view."""
    way = BlockRouting(8, 3, heads_together=together)
    texts = [clear_text(a + n, (12, 1, 40, 32), way, a, dtype) for a, n in spans]
    case = step(texts, [range(a, a + n) for a, n in spans], 4)
    case = replace(case, v_SMW=case.k_SMH[..., :32])
    assert case.path() == "paged_blocks"
    check(case)


@needs_kernel
def test_the_path_for_what_the_kernel_does_not_do() -> None:
    """Blocks of no whole pages, and the statistic of QK-Clip: by the path of training, over
    pages."""
    texts = [clear_text(n, SHAPES[0], BlockRouting(6, 3), n) for n in (50, 33)]
    spans = [range(20, 50), range(32, 33)]
    case = step(texts, spans, 4)
    assert case.path() == "blocks"
    check(case)
    texts = [clear_text(n, SHAPES[0], BlockRouting(8, 3), n) for n in (50, 33)]
    case = step(texts, spans, 4)
    for kind in ("exact", "bound"):
        stats = StatsRequest(kind, lse=True)
        asked = replace(case, context=replace(case.context, stats=stats))
        assert asked.path() == "blocks"
        close(asked.run().max_logit_N, asked.reference().max_logit_N, 5e-6)
        check(asked)


# --- bits


@dataclass(frozen=True)
class Marked:
    """Texts whose values say which block they are of, so that an output says what was read."""

    texts: list[Text]
    spans: list[range]

    def read(self, order: list[int], page_size: int, placement: int) -> list[Tensor]:
        """Of each text, in a step with those in ``order``: blocks that its rows read; bool."""
        texts, spans = [self.texts[i] for i in order], [self.spans[i] for i in order]
        out_TNW = step(texts, spans, page_size, placement).run().out_TNW
        parts = dict(zip(order, (out_TNW > 0).split([len(s) for s in spans]), strict=True))
        return [parts[i] for i in sorted(parts)]


def marked(dtype: torch.dtype, has_ties: bool, routing: BlockRouting, factor: int = 1) -> Marked:
    """Of several lengths. With ties: every block holds the same keys, in an order of its own, so
    that means differ by rounding at most."""
    spans = [range(90, 91), range(60), range(30, 32), range(70, 110), range(127, 128)]
    spans = [range(factor * s.start, factor * (s.stop - 1) + 1) for s in spans]
    num_blocks = spans[-1].stop // routing.block_size + 1
    texts = []
    for i, span in enumerate(spans):
        text = clear_text(span.stop, (4, 2, 8 * factor, 8), None, i, dtype)
        block_L = torch.arange(span.stop) // routing.block_size
        v_LMW = torch.nn.functional.one_hot(block_L, num_blocks)
        v_LMW = v_LMW[:, None].expand(-1, 2, -1).to(dtype)
        k_LMH = text.k_LMH
        if has_ties:
            generator = torch.Generator().manual_seed(i)
            places = [
                torch.randperm(routing.block_size, generator=generator)
                for _ in range(int(block_L[-1]) + 1)
            ]
            k_LMH = text.k_LMH[: routing.block_size][torch.cat(places)[: span.stop]]
        texts.append(Text(text.q_LNH, k_LMH, v_LMW, routing))
    return Marked(texts, spans)


@needs_kernel
@both
@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("has_ties", [False, True], ids=["clear", "ties"])
@pytest.mark.parametrize(("factor", "page_size"), [(1, 8), (8, 2)], ids=["few", "many"])
def test_the_choice_depends_on_nothing_but_the_sequence(
    factor: int, page_size: int, has_ties: bool, together: int, dtype: torch.dtype
) -> None:
    """Not on where its pages lie, on its neighbours or on their order, unless rounding alone
    decides: then rows read as many blocks all the same."""
    case = marked(dtype, has_ties, BlockRouting(8, 3, heads_together=together), factor)
    base = case.read([0, 1, 2, 3, 4], page_size, 0)
    for text, span, read_TNn in zip(case.texts, case.spans, base, strict=True):
        assert text.routing is not None
        own_T = torch.arange(span.start, span.stop) // 8
        expected_TN = own_T.clamp(max=2)[:, None].expand(-1, 4) + 1
        assert torch.equal(read_TNn.sum(2), expected_TN)  # exactly top_k blocks, ties or not
    if has_ties:
        return
    for order, placement in (
        ([0, 1, 2, 3, 4], 1),
        ([4, 3, 2, 1, 0], 2),
        ([2, 0], 3),
        ([0, 2, 3], 4),
        *(([i], 5 + i) for i in range(5)),
    ):
        for i, read_TNn in zip(sorted(order), case.read(order, page_size, placement), strict=True):
            assert torch.equal(read_TNn, base[i]), (order, i)


@needs_kernel
@both
@pytest.mark.parametrize("routing", [BlockRouting(8, 3), BlockRouting(16, 2, True, 2)])
def test_any_chunks_equal_one_shot(routing: BlockRouting, dtype: torch.dtype) -> None:
    """Down to one token at a time, two texts side by side at a pace of their own."""
    texts = [clear_text(n, SHAPES[0], routing, n, dtype) for n in (75, 60)]
    one_shot = [step([t], [range(len(t.q_LNH))], 4) for t in texts]
    expected = [one.reference() for one in one_shot]
    for one in one_shot:
        check(one)
    for sizes in ([1], [7, 1, 30], [40, 9, 8], [64]):
        done, turn = [0, 0], 0
        while any(done[i] < len(text.q_LNH) for i, text in enumerate(texts)):
            spans = dict[int, range]()
            for i, text in enumerate(texts):
                stop = min(done[i] + sizes[(turn + i) % len(sizes)], len(text.q_LNH))
                if done[i] < stop:
                    spans[i] = range(done[i], stop)
            found = step([texts[i] for i in spans], [*spans.values()], 4, turn).run()
            row = 0
            for i, span in spans.items():
                rows = slice(row, row + len(span))
                of_text = expected[i].out_TNW[span.start : span.stop]
                close(found.out_TNW[rows], of_text, OUT_TOLERANCE[dtype])
                row, done[i] = rows.stop, span.stop
            turn += 1


# --- sums of pages


def filled(case: Step, dtype: torch.dtype, page_size: int) -> EntryCache:
    """A store of the size that the step needs."""
    num_slots = len(case.k_SMH)
    return EntryCache(llama_config(head_dim=8), num_slots, dtype, page_size=page_size)


@both
def test_page_sums_equal_those_of_the_keys(dtype: torch.dtype) -> None:
    """After steps of any length, of pages of sequences that choose; in float32, where bfloat16
    would lose what a page's last keys add."""
    routing = BlockRouting(8, 3)
    texts = [clear_text(60, (4, 2, 8, 16), None, i, dtype) for i in range(3)]
    texts = [replace(text, routing=way) for text, way in zip(texts, (routing, None, routing))]  # noqa: B905
    final = step(texts, [range(60)] * 3, 4)
    store = filled(final, dtype, 4)
    assert final.context.pages is not None
    slots = [final.context.pages.slots(b) for b in range(3)]
    stops = [0, 0, 0]
    for lengths in ([3, 1, 9], [1, 1, 0], [20, 30, 1], [1, 2, 2], [35, 26, 48]):
        spans = [range(stop, stop + new) for stop, new in zip(stops, lengths, strict=True)]
        stops = [span.stop for span in spans]
        rows = [range(a, b, 1) for a, b in zip([0, 0, 0], lengths, strict=True)]
        context = AttentionContext(
            torch.cat([torch.arange(span.start, span.stop) for span in spans]),
            torch.cat([torch.full((len(span),), b) for b, span in enumerate(spans)]),
            tuple((0, len(row), span.start) for row, span in zip(rows, spans, strict=True)),
            pages=replace(
                final.context.pages,
                lengths=tuple(stops),
                write_T=torch.cat([slots[b][s.start : s.stop] for b, s in enumerate(spans)]),
                store=store,
            ),
            routing=final.context.routing,
        )
        for layer in range(2):
            entry = tuple(
                torch.cat([x[span.start : span.stop] for x, span in zip(part, spans)]) + layer  # noqa: B905
                for part in ([t.k_LMH for t in texts], [t.v_LMW[..., :8] for t in texts])
            )
            cached(entry, context, layer)
            k_PZMH = store.read(layer)[0].unflatten(0, (-1, 4)).double()
            for b, stop in enumerate(stops):
                if texts[b].routing is None:
                    continue
                pages_P = final.context.pages.table_BP[b, : stop // 4]
                sums_PMH = store.page_sums(layer)[pages_P]
                assert sums_PMH.dtype == torch.float32
                assert_close(sums_PMH.double(), k_PZMH[pages_P].sum(1), atol=1e-6, rtol=1e-6)


def test_pages_are_summed_once_and_where_rows_choose() -> None:
    """The page of its last slot, when a row fills it; none of sequences that read everything, and
    none where blocks are not made of whole pages."""
    texts = [clear_text(40, SHAPES[0], way) for way in (BlockRouting(8, 2), None)]
    spans = [range(6, 25), range(24)]
    context = step(texts, spans, 4).context
    assert context.pages is not None
    assert context.filled_X is not None
    assert context.filled_X.tolist() == context.pages.table_BP[0, 1:6].tolist()
    for way in (None, BlockRouting(6, 2)):
        assert replace(context, routing=(way, None)).filled_X is None
    assert replace(context, routing=None).filled_X is None


def test_sums_of_latent_entries_are_those_of_the_one_key() -> None:
    config = k2_config()
    store = EntryCache(config, 16, torch.float32, "latent", page_size=4)
    latent_TR = torch.randn(16, 1, config.kv_lora_rank + config.qk_rope_head_dim)
    store.write(1, (latent_TR,), torch.arange(16))
    store.pool(1, torch.tensor([2, 0]))
    sums_PMH = store.page_sums(1)
    assert_close(sums_PMH[[0, 2]], latent_TR.view(4, 4, 1, -1)[[0, 2]].sum(1))
    rewritten_TR = -latent_TR[:4]
    store.write(1, (rewritten_TR,), torch.arange(4))  # another sequence has the page now
    store.pool(1, torch.tensor([0]))
    assert_close(store.page_sums(1)[0], rewritten_TR.sum(0))


# --- without the step's own keys


@needs_kernel
@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([1, 5, 63, 64, 65, 130]), st.integers(1, 40)), min_size=1),
    st.sampled_from([Heads(4, 2, 8, 8), Heads(6, 1, 24, 16), Heads(16, 2, 32, 32)]),
    st.sampled_from([1, 5, 16]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_rows_that_do_not_see_their_step(
    sequences: list[tuple[int, int]], heads: Heads, page_size: int, dtype: torch.dtype
) -> None:
    """The keys of the step are NaN: nothing reads them."""
    case = paged_case(sequences[:3], heads, page_size)
    pages = case.context.pages
    assert pages is not None
    q, k, v = (x.to(dtype) for x in (case.q_TNH, case.k_SMH, case.v_SMW))
    k[pages.write_T], v[pages.write_T] = torch.nan, torch.nan
    stats = StatsRequest("exact", lse=True, score_rows=(0, len(q) - 1))
    context = replace(case.context, sees_step=False, stats=stats)
    assert serves(q, k, v, context)
    assert choose_attention(q, k, v, context).value == "paged"
    ours = attend_paged(q, k, v, context, SCALE)
    expected = attend_reference(q.float(), k.float(), v.float(), context, SCALE)
    close(ours.out_TNW, expected.out_TNW, OUT_TOLERANCE[dtype])
    close(ours.lse_TN, expected.lse_TN, LSE_TOLERANCE[dtype])
    close(ours.max_logit_N, expected.max_logit_N, LSE_TOLERANCE[dtype])
    assert ours.scores is not None
    assert expected.scores is not None
    for row, scores_NK in expected.scores.items():
        close(ours.scores[row], scores_NK, LSE_TOLERANCE[dtype])


@needs_kernel
def test_their_pages_need_no_room_for_the_step() -> None:
    """As where rows of many sequences read one block's pages."""
    case = paged_case([(8, 30), (16, 2)], Heads(4, 2, 8, 8), 8)
    pages = case.context.pages
    assert pages is not None
    expected = attend_reference(
        *case.inputs[:3], replace(case.context, sees_step=False), case.scale
    )
    context = replace(case.context, sees_step=False, pages=replace(pages, lengths=(8, 16)))
    found = attend(*case.inputs[:3], context, case.scale)
    assert_close(found.out_TNW, expected.out_TNW, atol=1e-5, rtol=1e-5)


@needs_kernel
def test_outputs_and_sums_are_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks a request asks for: results do not show it."""
    ways_ = [BlockRouting(8, 9), BlockRouting(8, 9, True, 2), BlockRouting(8, 9)]
    spans = [range(30, 100), range(90, 93), range(95, 99)]
    texts = [
        clear_text(s.stop, SHAPES[0], way, s.stop) for s, way in zip(spans, ways_, strict=True)
    ]
    whole = step(texts, spans, 4)
    outs = [whole.run()]
    for name in ("_MOST_OUTPUTS", "_MOST_SUMS"):
        monkeypatch.setattr(paged_blocks, name, 1)
        outs.append(whole.run())
        check(whole)
    assert_close(outs[1].out_TNW, outs[0].out_TNW, rtol=0, atol=1e-5)
