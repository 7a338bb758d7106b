"""Routing and expert products of a mixture-of-experts layer (DeepSeek-V3, section 2.1.2).

Rows are sorted by expert, multiplied in one grouped product per weight, and put back. A token's
experts are kept in ascending order of id and summed in that order, so that a row's result does
not depend on its neighbours.

Letters: ``X`` = T·K rows in expert order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops.activation import swiglu
from selenite.ops.permute import invert, permute_rows, repeat_rows, sum_rows


def select_experts(
    scores_TE: Tensor, bias_E: Tensor, experts_per_token: int, num_groups: int, topk_groups: int
) -> Tensor:
    """Ids of each token's experts, ascending, int64 ``[T, K]`` (``noaux_tc``).

    Experts are ranked by score plus balancing bias. With groups, only the ``topk_groups`` groups
    whose two best experts sum highest take part.
    """
    ranked_TE = scores_TE.detach() + bias_E
    if num_groups > 1:
        T, E = ranked_TE.shape
        grouped = ranked_TE.view(T, num_groups, E // num_groups)
        best_TG = grouped.topk(2, dim=-1).values.sum(-1)
        kept_TG = torch.zeros_like(best_TG, dtype=torch.bool)
        kept_TG.scatter_(1, best_TG.topk(topk_groups, dim=-1).indices, True)
        ranked_TE = grouped.masked_fill(~kept_TG[..., None], -torch.inf).view(T, E)
    return ranked_TE.topk(experts_per_token, dim=-1).indices.sort(-1).values


def gate_weights(scores_TE: Tensor, ids_TK: Tensor, normalize: bool, scaling: float) -> Tensor:
    """What each chosen expert's output is multiplied by; the balancing bias has no part in it."""
    weights_TK = scores_TE.gather(1, ids_TK)
    if normalize:
        weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
    return weights_TK * scaling


def expert_load(ids_TK: Tensor, num_experts: int) -> Tensor:
    """How many tokens chose each expert, int64 ``[E]``."""
    return torch.bincount(ids_TK.reshape(-1), minlength=num_experts)


def experts(
    x_TD: Tensor,
    ids_TK: Tensor,
    weights_TK: Tensor,
    gate_EFD: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
) -> Tensor:
    """Weighted sum of each token's SwiGLU experts; same shape and dtype as ``x``."""
    T, K = ids_TK.shape
    order_X = ids_TK.reshape(-1).argsort(stable=True)
    place_X = invert(order_X)
    ends_E = expert_load(ids_TK, gate_EFD.shape[0]).cumsum(0).to(torch.int32)
    x_XD = repeat_rows(x_TD, order_X, place_X, K)
    hidden_XF = swiglu(grouped(x_XD, gate_EFD, ends_E), grouped(x_XD, up_EFD, ends_E))
    # Weighting the narrow hidden rows instead of the outputs: the same by linearity, for less.
    gate_X1 = permute_rows(weights_TK.reshape(-1, 1), order_X, place_X)
    y_XD = grouped(hidden_XF * gate_X1.to(x_TD.dtype), down_EDF, ends_E)
    return sum_rows(y_XD, order_X, place_X, K)


def grouped(x_XI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """Row block ``e`` of ``x`` (ending before ``ends_E[e]``) times expert ``e``'s weight."""
    weight = weight_EOI.to(x_XI.dtype)
    return F.grouped_mm(x_XI, weight.transpose(1, 2), offs=ends_E)


def experts_reference(
    x_TD: Tensor,
    ids_TK: Tensor,
    weights_TK: Tensor,
    gate_EFD: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
) -> Tensor:
    """``experts``, one expert after another: the oracle of the tests."""
    out_TD = torch.zeros_like(x_TD, dtype=torch.float32)
    for e in range(gate_EFD.shape[0]):
        rows, slot = (ids_TK == e).nonzero(as_tuple=True)
        x = x_TD[rows]
        weight = [w[e].to(x.dtype) for w in (gate_EFD, up_EFD, down_EDF)]
        y = (F.silu(x @ weight[0].T) * (x @ weight[1].T)) @ weight[2].T
        out_TD.index_add_(0, rows, y.float() * weights_TK[rows, slot, None])
    return out_TD.to(x_TD.dtype)
