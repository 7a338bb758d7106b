"""Mixture of experts: sigmoid router, routed experts, shared experts (DeepSeek-V3, section 2.1.2).

Balancing needs no auxiliary loss: each expert has a bias that only takes part in the choice, and
``optim/balance.py`` moves it by the sign of the expert's excess load, which this layer returns.

Letters: ``E`` experts, ``K`` experts of a token, ``F`` expert width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selenite.model.config import MoEConfig
from selenite.model.feed_forward import FeedForward
from selenite.model.layers import Adapter
from selenite.ops.activation import sigmoid
from selenite.ops.linear import LowRank, linear
from selenite.ops.moe import expert_load, experts, gate_weights, select_experts


@dataclass(frozen=True)
class Routing:
    """What a layer's router did. Written by the layer; read by balancing and by replay."""

    ids_TK: Tensor  # int64, ascending in each row: the experts that were used
    load_E: Tensor  # int64: tokens that each expert was used for
    num_other: Tensor | None
    """int64 scalar: tokens for which the router would have chosen others than those replayed; None
    without replay."""


class Router(nn.Module):
    """Scores of the experts in float32, and the balancing bias (a buffer, never trained)."""

    def __init__(self, width: int, num_experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, width))
        self.bias: Tensor
        self.register_buffer("bias", torch.zeros(num_experts, dtype=torch.float32))

    def forward(self, x_TD: Tensor) -> Tensor:
        """Sigmoid affinities, float32 ``[T, E]``."""
        return sigmoid(linear(x_TD.float(), self.weight))


class Experts(nn.Module):
    """Weights of all routed experts, stacked; each expert is a matrix of its own."""

    def __init__(self, config: MoEConfig, width: int) -> None:
        super().__init__()
        count, hidden = config.num_experts, config.expert_hidden_size
        self.gate = nn.Parameter(torch.empty(count, hidden, width))
        self.up = nn.Parameter(torch.empty(count, hidden, width))
        self.down = nn.Parameter(torch.empty(count, width, hidden))
        self.lora = nn.ModuleDict()  # adapters by the weight's name, filled by model/lora.py

    def low_rank(self, part: str) -> LowRank | None:
        """What an adapter adds to ``gate``, ``up`` or ``down``."""
        if part not in self.lora:
            return None
        adapter = self.lora[part]
        assert isinstance(adapter, Adapter), part
        return adapter.low_rank


class MoE(nn.Module):
    """Routed experts plus the shared experts, which see every token."""

    def __init__(self, config: MoEConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.router = Router(width, config.num_experts)
        self.experts = Experts(config, width)
        if config.num_shared_experts:
            self.shared = FeedForward(width, config.num_shared_experts * config.expert_hidden_size)

    def forward(self, x_TD: Tensor, replay_TK: Tensor | None = None) -> tuple[Tensor, Routing]:
        """Output ``[T, D]`` and the routing.

        Args:
            x_TD: rows in the compute dtype.
            replay_TK: expert ids to use instead of choosing, ascending in each row; the gate
                weights are computed anew, so that they carry a gradient. In a row of -1 the router
                chooses.
        """
        config = self.config
        scores_TE = self.router(x_TD)
        ids_TK = select_experts(
            scores_TE,
            self.router.bias,
            config.experts_per_token,
            config.num_groups,
            config.topk_groups,
        )
        num_other = None
        if replay_TK is not None:
            chosen_TK, ids_TK = ids_TK, torch.where(replay_TK < 0, ids_TK, replay_TK)
            num_other = (chosen_TK != ids_TK).any(-1).sum()
        weights_TK = gate_weights(
            scores_TE, ids_TK, config.normalize_weights, config.routed_scaling_factor
        )
        own = self.experts
        lora = own.low_rank("gate"), own.low_rank("up"), own.low_rank("down")
        out_TD = experts(x_TD, ids_TK, weights_TK, own.gate, own.up, own.down, lora)
        if config.num_shared_experts:
            out_TD = out_TD + self.shared(x_TD)
        return out_TD, Routing(ids_TK, expert_load(ids_TK, config.num_experts), num_other)
