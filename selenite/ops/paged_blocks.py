"""Attention of rows that choose blocks of cached keys, by our kernel for pages: serving with MoBA.

    decoding   a row's own block and the chosen ones are all there is: a sequence of its own, whose
               page table names those pages and no others
    prompts    every row over its own block; then the chosen ones, where a sequence is a block and
               its rows are all that chose it; joined by log-sum-exps

The sum of a page's keys lies on the page (``EntryStore.page_sums``), so that blocks are chosen
without reading keys. Blocks are made of whole pages.

Letters: as in ``block_attention.py``; ``g`` query heads of a choice, all of one key/value head,
``p`` pages of a block, ``P`` pages of a sequence, ``V`` choices of a block, ``Z`` pages of what a
choice reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selenite.ops.attention_context import Attended, AttentionContext, BlockRouting, Pages
from selenite.ops.block_routing import choose_blocks, pick_blocks, sequence_means
from selenite.ops.paged_attention import read_pages

SUPPORTS: frozenset[str] = frozenset()

FEW_ROWS = 8
"""Of a sequence: up to here each row reads its blocks by itself; with more, those that chose a
block share it."""

_MOST_OUTPUTS = 1 << 23  # elements of the outputs of chosen blocks, held at once: 32 MiB
_MOST_SUMS = 1 << 23  # elements of sums that are gathered at once


def serves(context: AttentionContext, routing: BlockRouting) -> bool:
    """Whether this computes what ``paged_attention`` serves: blocks of whole pages, and no
    statistic for QK-Clip, which training asks for."""
    assert context.pages is not None
    return routing.block_size % context.pages.size == 0 and context.stats.max_logit is None


def attend_paged_blocks(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    layer: int,
    routing: BlockRouting,
) -> Attended:
    """``attend_reference`` for what ``serves``, all of whose sequences choose by ``routing``."""
    pages = context.pages
    assert pages is not None
    sums_PMH = pages.store.page_sums(layer)
    out_TNW = q_TNH.new_empty(*q_TNH.shape[:2], v_SMW.shape[2])
    lse_TN = torch.empty(q_TNH.shape[:2], device=q_TNH.device)
    few = list[int]()
    for sequence, (start, stop, first) in enumerate(context.segments):
        if stop - start <= FEW_ROWS:
            few.append(sequence)
            continue
        rows, table_P = slice(start, stop), pages.table_BP[sequence]
        slots_K = pages.slots(sequence)[: first + stop - start]
        means_nMH = sequence_means(k_SMH, slots_K, context, sequence, layer, routing)
        chosen_TCK = choose_blocks(q_TNH[rows], means_nMH, context.positions_T[rows], routing)
        at_once = max(1, _MOST_OUTPUTS // max(1, out_TNW[0].numel() * chosen_TCK.shape[2]))
        for row in range(start, stop, at_once):
            rows = slice(row, min(row + at_once, stop))
            chosen = chosen_TCK[row - start : rows.stop - start]
            operands = q_TNH[rows], k_SMH, v_SMW, chosen, table_P, first + row - start
            out_TNW[rows], lse_TN[rows] = _many(*operands, pages.size, routing.block_size, scale)
    if few:
        all_rows = torch.cat([torch.arange(*context.segments[i][:2]) for i in few])
        at_once = max(1, _MOST_SUMS // max(1, sums_PMH[0].numel() * pages.table_BP.shape[1]))
        for row_R in all_rows.split(at_once):
            out_TNW[row_R], lse_TN[row_R] = _few(
                q_TNH[row_R],
                k_SMH,
                v_SMW,
                sums_PMH,
                pages,
                context.sequence_T[row_R],
                context.positions_T[row_R],
                routing,
                scale,
            )
    return Attended(out_TNW, None, lse_TN if context.stats.lse else None)


def _few(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    sums_PMH: Tensor,
    pages: Pages,
    sequence_T: Tensor,
    positions_T: Tensor,
    routing: BlockRouting,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of a few rows of any sequences."""
    (T, N, H), M = q_TNH.shape, k_SMH.shape[1]
    size = routing.block_size
    p = size // pages.size
    n = int(positions_T.max()) // size
    table_TP = pages.table_BP[sequence_T]
    # Pages of blocks that are not whole hold any sum, and are not chosen.
    known_TP = table_TP[:, : n * p].clamp(min=0)
    means_TnMH = sums_PMH[known_TP].unflatten(1, (n, p)).sum(2) / size
    q_TMGH = q_TNH.float().view(T, M, N // M, H)
    scores_TMGn = torch.matmul(q_TMGH, means_TnMH.permute(0, 2, 3, 1))
    chosen_TCK = pick_blocks(scores_TMGn.flatten(1, 2), positions_T, routing)
    chosen_TCK = _by_kv_head(chosen_TCK, M)
    C = chosen_TCK.shape[1]
    # Ascending, and the own block after the last chosen one; what lies behind is not read.
    own_TC1 = (positions_T // size)[:, None, None].expand(T, C, 1)
    block_TCK = torch.cat((chosen_TCK, own_TC1), -1)
    block_TCK = torch.where(block_TCK < 0, n + 1, block_TCK).sort(-1).values.minimum(own_TC1)
    page_TCZ = (block_TCK[..., None] * p + torch.arange(p)).flatten(2)
    page_TCZ = page_TCZ.clamp(max=table_TP.shape[1] - 1)
    table_TCZ = table_TP[:, None].expand(T, C, -1).gather(2, page_TCZ)
    first_TC = (chosen_TCK >= 0).sum(-1) * size + positions_T[:, None] % size
    row_R = torch.arange(T * C // M)
    out_TCgW = q_TNH.new_empty(T, C, N // C, v_SMW.shape[2])
    lse_TCg = torch.empty(T, C, N // C)
    for m in range(M):
        own = slice(m * C // M, (m + 1) * C // M)
        segments_R3 = torch.stack((row_R, row_R + 1, first_TC[:, own].flatten()), 1)
        q_RgH = q_TNH.unflatten(1, (C, N // C))[:, own].flatten(0, 1)
        where = pages.size, table_TCZ[:, own].flatten(0, 1), segments_R3
        out, softmax = read_pages(q_RgH, k_SMH[:, m : m + 1], v_SMW[:, m : m + 1], where, scale)
        out_TCgW[:, own] = out.unflatten(0, (T, -1))
        lse_TCg[:, own] = softmax[0].unflatten(0, (T, -1))
    return out_TCgW.flatten(1, 2), lse_TCg.flatten(1, 2)


def _many(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    chosen_TCK: Tensor,
    table_P: Tensor,
    first: int,
    page_size: int,
    block_size: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of consecutive rows of one sequence, from position ``first`` on."""
    (T, N, _), M, W = q_TNH.shape, k_SMH.shape[1], v_SMW.shape[2]
    p = block_size // page_size
    chosen_TCK = _by_kv_head(chosen_TCK, M)
    C, K = chosen_TCK.shape[1:]
    # Every block's pages; of the last one fewer may be there.
    end = first + T
    num_blocks = -(-end // block_size)
    table_bp = torch.nn.functional.pad(table_P, (0, num_blocks * p), value=-1)
    table_bp = table_bp[: num_blocks * p].view(num_blocks, p)
    begin_b = torch.arange(first // block_size, num_blocks) * block_size
    stop_b, start_b = (begin_b + block_size).clamp(max=end), begin_b.clamp(min=first)
    own_b3 = torch.stack((start_b - first, stop_b - first, start_b - begin_b), 1)
    where = page_size, table_bp[first // block_size :].contiguous(), own_b3
    out_TNW, own_softmax = read_pages(q_TNH, k_SMH, v_SMW, where, scale)
    if K == 0:
        return out_TNW, own_softmax[0]
    # Choices sorted by key/value head and block, and how many there are of each.
    lane_TCK = chosen_TCK + (torch.arange(C) // (C // M) * num_blocks)[:, None]
    choice_V = (chosen_TCK.reshape(-1) >= 0).nonzero()[:, 0]
    lane_V, order_V = lane_TCK.reshape(-1)[choice_V].sort(stable=True)
    choice_V = choice_V[order_V]
    count_Mb = lane_V.bincount(minlength=M * num_blocks).view(M, num_blocks)
    g = N // C
    out_ZgW = out_TNW.new_zeros(T * C * K, g, W)
    lse_Zg = torch.full((T * C * K, g), -torch.inf)
    q_XgH = q_TNH.reshape(T * C, g, -1)
    for m, of_head_V in enumerate(choice_V.split(count_Mb.sum(1).tolist())):
        if not len(of_head_V):
            continue
        block_u = count_Mb[m].nonzero()[:, 0]
        stop_u = count_Mb[m][block_u].cumsum(0)
        start_u = stop_u - count_Mb[m][block_u]
        segments_u3 = torch.stack((start_u, stop_u, torch.full_like(start_u, block_size)), 1)
        where = page_size, table_bp[block_u], segments_u3
        operands = q_XgH[of_head_V // K], k_SMH[:, m : m + 1], v_SMW[:, m : m + 1]
        out, softmax = read_pages(*operands, where, scale, sees_step=False)
        out_ZgW[of_head_V], lse_Zg[of_head_V] = out, softmax[0]
    lse_TCgZ = torch.cat(
        (own_softmax[0].view(T, C, g, 1), lse_Zg.view(T, C, K, g).transpose(2, 3)), -1
    )
    total_TCg = lse_TCgZ.logsumexp(-1)
    share_TCgZ = (lse_TCgZ - total_TCg[..., None]).exp()
    chosen_TCgKW = out_ZgW.view(T, C, K, g, W).transpose(2, 3).float()
    joined_TCgW = (share_TCgZ[..., None, 1:] @ chosen_TCgKW)[..., 0, :]
    joined_TCgW += share_TCgZ[..., :1] * out_TNW.view(T, C, g, W)
    return joined_TCgW.view(T, N, W).to(q_TNH.dtype), total_TCg.view(T, N)


def _by_kv_head(chosen_TCK: Tensor, M: int) -> Tensor:
    """A choice for several key/value heads becomes one for each."""
    return chosen_TCK.repeat_interleave(max(1, M // chosen_TCK.shape[1]), 1)
