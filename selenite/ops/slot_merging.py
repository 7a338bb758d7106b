"""Fewer slots for the same tokens: KeepKV (arXiv 2504.09936), on one layer of one request.

    keep    which slots stay, by what the last queries attended to
    merge   each other slot goes into the kept one whose key is most like its own, or is given up

A slot has a key, a value, and for each query head a bias that is added to its logit: the logarithm
of what the slot stands for. A merged slot has the weighted means of keys and values, weights being
the attention that the scoring queries gave, and a bias that restores the sum of that attention.

The paper scales the merged key instead (``zip``). Its scale has a pole and may turn a key around,
so that it destroys what is attended to; a bias does neither, and is exact for one query as well.

Letters: ``S`` slots of the request, in order; ``M`` key/value heads, ``G`` query heads of each,
``N`` query heads, ``H`` key width, ``W`` value width, ``Q`` scoring queries, ``B`` slots that are
kept, ``E`` slots that are not, ``U`` kept slots into which some are merged, ``X`` these and what is
merged into them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Keep = Literal["snapkv", "h2o", "recent"]
"""By the attention of the scoring queries (SnapKV, arXiv 2404.14469); by that of all rows (H2O,
arXiv 2306.14048); or the first and the last slots, whatever they are worth (StreamingLLM, arXiv
2309.17453)."""

Merge = Literal["bias", "zip", "votes", "none"]
"""``bias``: as above. ``zip``: ZIP-merging, equation 7 of the paper. ``votes``: the mean key, and
the logarithm of the number of tokens as bias, as the authors' code has it. ``none``: what is not
kept is given up."""

_NEIGHBOURS = 5  # slots whose attention is averaged before the best are kept, as SnapKV does
_TILE = 1024  # rows whose likeness is held at once
_LOGITS = 1 << 22  # that are held at once
_LEAST = 1e-6  # a mean logit below it has no scale


@dataclass(frozen=True)
class Slots:
    """Entries of one layer of a request."""

    k_SMH: Tensor
    v_SMW: Tensor
    bias_SN: Tensor  # float32

    def __post_init__(self) -> None:
        assert len(self.k_SMH) == len(self.v_SMW) == len(self.bias_SN)


@dataclass(frozen=True)
class Scores:
    """What scoring queries, the oldest first, make of all slots of a layer."""

    q_QNH: Tensor
    scale: float  # of logits
    logit_QNS: Tensor  # with biases
    share_QNS: Tensor  # attention
    total_QN: Tensor  # logarithm of the mass of all slots

    @classmethod
    def of(cls, q_QNH: Tensor, slots: Slots, scale: float) -> Scores:
        """By one pass over the keys."""
        logit_QNS = slot_logits(q_QNH, slots.k_SMH, scale).add_(slots.bias_SN.T)
        share_QNS = logit_QNS.softmax(-1)
        # The largest share is no less than one over the number of slots, and has a logarithm.
        most_QN1, where_QN1 = logit_QNS.max(-1, keepdim=True)
        total_QN = (most_QN1 - share_QNS.gather(-1, where_QN1).log())[..., 0]
        return cls(q_QNH, scale, logit_QNS, share_QNS, total_QN)

    def of_heads(self, heads: slice) -> Scores:
        """Of some of the query heads."""
        parts = (x[:, heads] for x in (self.logit_QNS, self.share_QNS, self.total_QN))
        return Scores(self.q_QNH[:, heads], self.scale, *parts)


def slot_logits(q_QNH: Tensor, k_SMH: Tensor, scale: float) -> Tensor:
    """Products of queries and the keys that they read, without bias; float32 ``[Q, N, S]``."""
    M = k_SMH.shape[1]
    q_QMGH = q_QNH.float().unflatten(1, (M, -1))
    return torch.einsum("qmgh,smh->qmgs", q_QMGH, k_SMH.float()).flatten(1, 2) * scale


def attention_sums(q_QNH: Tensor, k_SMH: Tensor, first: int, scale: float) -> Tensor:
    """What rows attend to, added up over them and the query heads of each key/value head; float32
    ``[M, S]``.

    Args:
        q_QNH: of consecutive rows.
        k_SMH: keys up to the last row's.
        first: keys before the first row's own.
        scale: of logits.
    """
    (Q, N, _), (S, M, _) = q_QNH.shape, k_SMH.shape
    assert first + Q == S, (first, Q, S)
    sums_MS = torch.zeros(M, S, device=q_QNH.device)
    rows = max(1, _LOGITS // (N * S))
    for start in range(0, Q, rows):
        tile_QNH = q_QNH[start : start + rows]
        seen = first + start + len(tile_QNH)
        logit_QNS = slot_logits(tile_QNH, k_SMH[:seen], scale)
        future_QS = torch.ones(len(tile_QNH), seen, dtype=torch.bool, device=q_QNH.device)
        logit_QNS.masked_fill_(future_QS.triu_(first + start + 1)[:, None], -torch.inf)
        sums_MS[:, :seen] += logit_QNS.softmax(-1).sum(0).unflatten(0, (M, -1)).sum(1)
    return sums_MS


def log_average(logit_QX: Tensor, decay: float) -> Tensor:
    """Logarithm of a weighted mean of exponentials, over queries of which the last counts most:
    equation 10 of the paper, with weights that sum to one whatever the number of queries.

    Args:
        logit_QX: the oldest query first; any further dimensions.
        decay: weight of a query beside the one after it.
    """
    Q = len(logit_QX)
    age_Q = torch.arange(Q - 1, -1, -1, device=logit_QX.device, dtype=torch.float32)
    weight_Q = (age_Q * math.log(decay)).log_softmax(0)
    return (logit_QX + weight_Q.view(-1, *[1] * (logit_QX.dim() - 1))).logsumexp(0)


def choose_kept(
    share_QNS: Tensor,
    M: int,
    count: int,
    num_sinks: int,
    num_recent: int,
    keep: Keep,
    sums_MS: Tensor | None = None,
) -> Tensor:
    """Slots that each head keeps, ascending; int64 ``[M, B]`` with ``B = count``.

    Args:
        share_QNS: attention by the scoring queries.
        M: key/value heads.
        count: slots to be kept.
        num_sinks: first slots, which are kept.
        num_recent: last slots, which are kept.
        keep: how the others are chosen.
        sums_MS: for ``h2o``: what all rows attended to.
    """
    S, device = share_QNS.shape[2], share_QNS.device
    assert num_sinks + num_recent <= count <= S, (num_sinks, num_recent, count, S)
    if keep == "recent":
        worth_MS = torch.arange(S, device=device, dtype=torch.float32).expand(M, S).clone()
    elif keep == "h2o":
        assert sums_MS is not None
        worth_MS = sums_MS.clone()
    else:
        mass_MS = share_QNS.sum(0).unflatten(0, (M, -1)).sum(1)
        around = _NEIGHBOURS // 2
        padded_M1S = F.pad(mass_MS[:, None], (around, around))
        worth_MS = F.avg_pool1d(padded_M1S, _NEIGHBOURS, 1)[:, 0]
    worth_MS[:, :num_sinks] = torch.inf
    worth_MS[:, S - num_recent :] = torch.inf
    best_MS = worth_MS.argsort(dim=1, descending=True, stable=True)
    return best_MS[:, :count].sort(1).values


def merge_slots(
    slots: Slots,
    scores: Scores,
    kept_MB: Tensor,
    *,
    merge: Merge,
    likeness: float,
    num_sinks: int,
    decay: float,
) -> tuple[Slots, int]:
    """The kept slots, with the others in them; and how many slots, of all heads, were given up.

    Args:
        slots: all of them.
        scores: of them.
        kept_MB: as ``choose_kept`` gives them.
        merge: how.
        likeness: cosine of two keys above which they may be merged.
        num_sinks: first slots, into which nothing is merged.
        decay: see ``log_average``.
    """
    M, B = kept_MB.shape
    N = slots.bias_SN.shape[1]
    is_kept_MS = torch.zeros(M, len(slots.k_SMH), dtype=torch.bool, device=kept_MB.device)
    is_kept_MS.scatter_(1, kept_MB, True)
    parts = []
    lost = 0
    for head in range(M):
        heads = slice(head * N // M, (head + 1) * N // M)
        one = Slots(
            slots.k_SMH[:, head : head + 1],
            slots.v_SMW[:, head : head + 1],
            slots.bias_SN[:, heads],
        )
        gone_E = (~is_kept_MS[head]).nonzero()[:, 0]
        part, count = _merge_head(
            *(one, scores.of_heads(heads), kept_MB[head], gone_E, merge),
            *(likeness, num_sinks, decay),
        )
        parts.append(part)
        lost += count
    merged = Slots(
        torch.cat([part.k_SMH for part in parts], 1),
        torch.cat([part.v_SMW for part in parts], 1),
        torch.cat([part.bias_SN for part in parts], 1),
    )
    return merged, lost


def _merge_head(
    slots: Slots,
    scores: Scores,
    kept_B: Tensor,
    gone_E: Tensor,
    merge: Merge,
    likeness: float,
    num_sinks: int,
    decay: float,
) -> tuple[Slots, int]:
    """``merge_slots`` of one key/value head."""
    kept = _pick(slots, kept_B)
    if merge == "none" or not len(gone_E):
        return kept, len(gone_E)
    num_fixed = int((kept_B < num_sinks).sum())
    target_E, cosine_E = _most_alike(slots.k_SMH[gone_E, 0], kept.k_SMH[num_fixed:, 0])
    is_merged_E = cosine_E > likeness
    gone_E, target_E = gone_E[is_merged_E], target_E[is_merged_E] + num_fixed
    lost = len(is_merged_E) - len(gone_E)
    if not len(gone_E):
        return kept, lost
    if merge == "zip":
        merged, unmerged = _zip(slots, kept, kept_B, gone_E, target_E, scores, decay)
        return merged, lost + unmerged
    grown_U, group_E = target_E.unique(return_inverse=True)
    U = len(grown_U)
    member_X = torch.cat((kept_B[grown_U], gone_E))
    group_X = torch.cat((torch.arange(U, device=gone_E.device), group_E))
    # Attention itself, which does not depend on how loud a query is.
    bias_GX = slots.bias_SN[member_X].T
    logprob_QGX = scores.logit_QNS[..., member_X] - scores.total_QN[..., None]
    weight_GX = log_average(logprob_QGX - bias_GX, decay) + bias_GX
    mean_X = weight_GX.logsumexp(0)
    share_X = (mean_X - _log_sums(mean_X[None], group_X, U)[0, group_X]).exp()
    k_UMH = _sums(share_X, slots.k_SMH[member_X], group_X, U)
    v_UMW = _sums(share_X, slots.v_SMW[member_X], group_X, U)
    if merge == "votes":
        bias_GU = _log_sums(bias_GX, group_X, U)
    else:
        logit_QGU = slot_logits(scores.q_QNH, k_UMH, scores.scale) - scores.total_QN[..., None]
        bias_GU = _log_sums(weight_GX, group_X, U) - log_average(logit_QGU, decay)
    kept.k_SMH[grown_U], kept.v_SMW[grown_U], kept.bias_SN[grown_U] = k_UMH, v_UMW, bias_GU.T
    return kept, lost


def _pick(slots: Slots, rows_B: Tensor) -> Slots:
    return Slots(slots.k_SMH[rows_B], slots.v_SMW[rows_B], slots.bias_SN[rows_B])


def _most_alike(k_EH: Tensor, k_BH: Tensor) -> tuple[Tensor, Tensor]:
    """Of each key the one most like it, and the cosine of the two."""
    if not len(k_BH):
        return torch.zeros(len(k_EH), dtype=torch.int64, device=k_EH.device), k_EH.new_full(
            (len(k_EH),), -torch.inf, dtype=torch.float32
        )
    unit_BH = F.normalize(k_BH.float(), dim=-1)
    targets, cosines = [], []
    for tile_EH in k_EH.split(_TILE):
        best = (F.normalize(tile_EH.float(), dim=-1) @ unit_BH.T).max(-1)
        targets.append(best.indices)
        cosines.append(best.values)
    return torch.cat(targets), torch.cat(cosines)


def _log_sums(weight_YX: Tensor, group_X: Tensor, B: int) -> Tensor:
    """Logarithms of the sums of exponentials of each group; ``[Y, B]``."""
    index_YX = group_X.expand_as(weight_YX)
    most_YB = weight_YX.new_full((len(weight_YX), B), -torch.inf)
    most_YB.scatter_reduce_(1, index_YX, weight_YX, "amax")
    sum_YB = torch.zeros_like(most_YB)
    sum_YB.scatter_add_(1, index_YX, (weight_YX - most_YB.gather(1, index_YX)).exp())
    return sum_YB.log() + most_YB


def _sums(share_X: Tensor, x_XMH: Tensor, group_X: Tensor, U: int) -> Tensor:
    """Weighted sums by group, in the cache's dtype."""
    sum_UMH = x_XMH.new_zeros((U, *x_XMH.shape[1:]), dtype=torch.float32)
    sum_UMH.index_add_(0, group_X, share_X[:, None, None] * x_XMH.float())
    return sum_UMH.to(x_XMH.dtype)


def _zip(
    slots: Slots,
    kept: Slots,
    kept_B: Tensor,
    gone_E: Tensor,
    target_E: Tensor,
    scores: Scores,
    decay: float,
) -> tuple[Slots, int]:
    """Equation 7 of the paper, one slot after another; also how many could not be merged.

    In logarithms: a slot of ``p`` tokens and score ``s`` weighs ``ln p + ln s``, and after a merge
    its score is the mean of the two by tokens. Heads that share a key have their mean score.
    """
    logit_QGS = slot_logits(scores.q_QNH, slots.k_SMH, scores.scale)
    mean_QS = logit_QGS.logsumexp(1) - math.log(logit_QGS.shape[1])
    score_S, votes_S = log_average(mean_QS, decay).double(), slots.bias_SN[:, 0].double()
    k_BH, v_BW = kept.k_SMH[:, 0].double(), kept.v_SMW[:, 0].double()
    score_B, votes_B = score_S[kept_B], votes_S[kept_B]
    lost = 0
    for source_X, target_X in _by_turns(gone_E, target_E):
        score_2X = torch.stack((score_B[target_X], score_S[source_X]))
        votes_2X = torch.stack((votes_B[target_X], votes_S[source_X]))
        share_2X = (score_2X + votes_2X).softmax(0)
        mean_X = (share_2X * score_2X).sum(0)
        is_merged_X = mean_X.abs() >= _LEAST
        lost += int((~is_merged_X).sum())
        source_X, target_X = source_X[is_merged_X], target_X[is_merged_X]
        score_2X, votes_2X = score_2X[:, is_merged_X], votes_2X[:, is_merged_X]
        own_X1, other_X1 = share_2X[:, is_merged_X, None].unbind()
        both_X = votes_2X.logsumexp(0)
        merged_X = (score_2X + votes_2X).logsumexp(0) - both_X
        key_XH = own_X1 * k_BH[target_X] + other_X1 * slots.k_SMH[source_X, 0]
        k_BH[target_X] = key_XH * (merged_X / mean_X[is_merged_X])[:, None]
        v_BW[target_X] = own_X1 * v_BW[target_X] + other_X1 * slots.v_SMW[source_X, 0]
        score_B[target_X], votes_B[target_X] = merged_X, both_X
    dtype = kept.k_SMH.dtype
    bias_BG = votes_B[:, None].float().expand_as(kept.bias_SN)
    return Slots(k_BH[:, None].to(dtype), v_BW[:, None].to(dtype), bias_BG), lost


def _by_turns(source_E: Tensor, target_E: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a source and its target, of each target one at a time and its sources in order."""
    order_E = target_E.argsort(stable=True)
    sorted_E = target_E[order_E]
    turn_E = torch.empty_like(target_E)
    place_E = torch.arange(len(target_E), device=target_E.device)
    turn_E[order_E] = place_E - torch.searchsorted(sorted_E, sorted_E)
    for turn in range(int(turn_E.max()) + 1):
        is_now_E = turn_E == turn
        yield source_E[is_now_E], target_E[is_now_E]
