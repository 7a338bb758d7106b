"""Routing and expert products of a mixture-of-experts layer (DeepSeek-V3, section 2.1.2).

Rows are sorted by expert, multiplied in one grouped product per weight, and put back. A token's
experts are kept in ascending order of id and summed in that order, so that a row's result does
not depend on its neighbours.

Letters: ``X`` rows in expert order (T·K and padding), ``Z`` rows of padding, ``I`` inputs,
``O`` outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops.activation import swiglu
from selenite.ops.linear import LowRank
from selenite.ops.permute import repeat_rows, sum_rows
from selenite.runtime import INVARIANT_ROWS, is_batch_invariant

# oneDNN compiles a kernel for every new number of rows, in about 4 ms; an expert's load is new at
# every step. Rounded up, the numbers recur and the kernels are found again. The padding is never
# read: it costs half this many rows of each expert.
_ONEDNN_ALIGNMENT = 64
# Grouped products need rows of whole 16 bytes, which in bfloat16 are 8 values.
_RANK_MULTIPLE = 8


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


@dataclass(frozen=True)
class Dispatch:
    """Where tokens go: rows sorted by expert. Written by ``dispatch``, read by ``experts``."""

    slot_X: Tensor  # int64 index into the flattened [T, K] of each row; padding: 0
    places_TK: Tensor  # int64: row of each token's k-th expert
    padding_Z: Tensor  # int64: rows that belong to no token
    ends_E: Tensor  # int32: row after the last of each expert


def dispatch(ids_TK: Tensor, num_experts: int, alignment: int = 1) -> Dispatch:
    """Sorts the chosen experts' rows; each expert's block is padded to a multiple of
    ``alignment`` rows."""
    device = ids_TK.device
    flat_ids = ids_TK.reshape(-1)
    order_X = flat_ids.argsort(stable=True)
    load_E = expert_load(ids_TK, num_experts)
    padded_E = (load_E + alignment - 1) // alignment * alignment
    ends_E = padded_E.cumsum(0)
    shift_E = (ends_E - padded_E) - (load_E.cumsum(0) - load_E)
    row_X = torch.arange(len(order_X), device=device) + shift_E[flat_ids[order_X]]
    places_TK = torch.empty_like(flat_ids)
    places_TK[order_X] = row_X
    # Without padding the number of rows is known, and an accelerator need not be waited for.
    num_rows = len(order_X) if alignment == 1 else int(ends_E[-1])
    slot_X = torch.zeros(num_rows, dtype=torch.int64, device=device)
    slot_X[row_X] = order_X
    is_padding = torch.ones(num_rows, dtype=torch.bool, device=device)
    is_padding[row_X] = False
    padding_Z = is_padding.nonzero()[:, 0] if alignment > 1 else row_X[:0]
    return Dispatch(slot_X, places_TK.view_as(ids_TK), padding_Z, ends_E.to(torch.int32))


def experts(
    x_TD: Tensor,
    ids_TK: Tensor,
    weights_TK: Tensor,
    gate_EFD: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
    lora: tuple[LowRank | None, LowRank | None, LowRank | None] = (None, None, None),
) -> Tensor:
    """Weighted sum of each token's SwiGLU experts; same shape and dtype as ``x``.

    ``lora`` is what adapters add to gate, up and down.
    """
    K = ids_TK.shape[1]
    to = dispatch(ids_TK, gate_EFD.shape[0], _row_multiple(x_TD))
    source_X = to.slot_X // K
    x_XD = repeat_rows(x_TD, source_X, to.places_TK)
    lora_gate, lora_up, lora_down = lora
    gate_XF = adapted(x_XD, gate_EFD, to.ends_E, lora_gate)
    up_XF = adapted(x_XD, up_EFD, to.ends_E, lora_up)
    # Weighting the narrow hidden rows instead of the outputs: the same by linearity, for less.
    weight_X1 = repeat_rows(weights_TK.reshape(-1, 1), to.slot_X, to.places_TK.reshape(-1, 1))
    hidden_XF = swiglu(gate_XF, up_XF, weight_X1)
    y_XD = adapted(hidden_XF, down_EDF, to.ends_E, lora_down)
    return sum_rows(y_XD, source_X, to.places_TK, to.padding_Z)


def _row_multiple(x_TD: Tensor) -> int:
    """Of how many rows an expert's block must be a multiple. Without values (a memory plan) there
    are no loads to round up."""
    if x_TD.device.type == "meta":
        return 1
    if is_batch_invariant():
        return INVARIANT_ROWS
    is_onednn = x_TD.dtype == torch.bfloat16 and x_TD.device.type == "cpu"
    return _ONEDNN_ALIGNMENT if is_onednn else 1


def grouped(x_XI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """Row block ``e`` of ``x`` (ending before ``ends_E[e]``) times expert ``e``'s weight."""
    weight = weight_EOI.to(x_XI.dtype)
    if not is_batch_invariant():
        return F.grouped_mm(x_XI, weight.transpose(1, 2), offs=ends_E)
    # In float32, as ``linear`` does.
    out = F.grouped_mm(x_XI.float(), weight.float().transpose(1, 2), offs=ends_E)
    return out.to(x_XI.dtype)


def adapted(x_XI: Tensor, weight_EOI: Tensor, ends_E: Tensor, lora: LowRank | None) -> Tensor:
    """``grouped``, and what ``lora`` adds to it."""
    y_XO = grouped(x_XI, weight_EOI, ends_E)
    if lora is None:
        return y_XO
    missing = -lora.a_RI.shape[-2] % _RANK_MULTIPLE  # zeros: they add nothing
    narrow_XR = grouped(x_XI, F.pad(lora.a_RI, (0, 0, 0, missing)), ends_E) * lora.scale
    return y_XO + grouped(narrow_XR, F.pad(lora.b_OR, (0, missing)), ends_E)


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
