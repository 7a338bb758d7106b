"""QK-Clip: after the update, scale down the query and key weights of heads whose logits run away.

For a head whose largest attention logit S (scaled, signed, unmasked, over the step's whole batch)
exceeds tau, the weights are scaled so that the same input would have given tau exactly. Kimi K2,
arXiv 2507.20534, section 2.1. The logits come with the forward (ModelOutput.max_logit_LN), so
they are one update old and may overshoot tau a little.

Legend: L layers, N query heads, M key heads, H rows of a head, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from selenite.errors import ConfigError
from selenite.model.config import ModelConfig

GQAMode = Literal["query", "group", "balanced"]


@dataclass(frozen=True)
class QKClipReport:
    """What one ``qk_clip`` did."""

    num_clipped: int  # heads, over all layers
    num_nonfinite: int  # heads whose maximum was +inf or NaN; they are left as they are
    min_gamma: float  # the strongest scaling; 1.0 when nothing was clipped
    max_logit: float  # over all layers and heads, as given
    gamma_LN: Tensor  # the factor on each head's logits


class MaxLogit:
    """Maximum of the attention logits of each head over the micro-batches of a step.

    A maximum can be taken over the same values twice, so recomputed activations do no harm.
    """

    def __init__(self) -> None:
        self._max_LN: Tensor | None = None

    def update(self, max_logit_LN: Tensor) -> None:
        """Takes in one micro-batch."""
        update_LN = max_logit_LN.detach().float()
        self._max_LN = update_LN if self._max_LN is None else self._max_LN.maximum(update_LN)

    def take(self) -> Tensor:
        """The maximum, float32 [L, N]; the next ``update`` starts afresh.

        With ``torch.distributed`` initialised it is that of all ranks of the default group, in one
        collective: every rank must call this, and all clip alike. NaN becomes +inf there, which a
        maximum carries through in whatever order the ranks are compared.
        """
        assert self._max_LN is not None, "take() before the first update() of a step"
        taken_LN, self._max_LN = self._max_LN, None
        if dist.is_available() and dist.is_initialized():
            taken_LN = torch.where(taken_LN.isnan(), torch.inf, taken_LN)
            dist.all_reduce(taken_LN, op=dist.ReduceOp.MAX)
        return taken_LN


def clip_factors(max_logit_LN: Tensor, tau: float) -> Tensor:
    """tau / max(S, tau): 1 for every S up to tau, negative, zero and -inf included.

    Heads with S = +inf or NaN keep 1: no scaling is right for them, and the trainer has already
    stopped at the loss that such logits give.
    """
    max_logit_LN = max_logit_LN.float()
    # A tensor, because `number / tensor` multiplies by a reciprocal and misses 1 by a bit.
    tau_LN = torch.full_like(max_logit_LN, tau)
    gamma_LN = tau_LN / max_logit_LN.maximum(tau_LN)
    return torch.where(max_logit_LN.isnan() | max_logit_LN.isposinf(), 1.0, gamma_LN)


@torch.no_grad()
def qk_clip(
    model: nn.Module, max_logit_LN: Tensor, tau: float, gqa: GQAMode = "query"
) -> QKClipReport:
    """Scales query and key weights in place so that no head's logits exceed ``tau``.

    Args:
        model: named as docs/architecture.md has it, with ``config: ModelConfig``.
        max_logit_LN: each layer's largest logit by query head, [L, N]; extra prediction layers
            come behind the model's.
        tau: the bound; K2 trains with 100.
        gqa: what to scale where query heads share a key head. ``query``: the query rows alone,
            exact for every head. ``balanced``: exact too, the key head takes the square root of
            the group's strongest factor and each query head the rest; with one query head per
            key head this is K2's rule for multi-head attention. ``group``: the whole group is
            scaled by its strongest factor. MLA ignores it.

    Values, and MLA's shared rotary key, are never touched: they would change other heads.
    """
    config = model.config
    assert isinstance(config, ModelConfig), type(config)
    _check(max_logit_LN, tau, config)
    gamma_LN = clip_factors(max_logit_LN, tau)
    params = dict(model.named_parameters())
    blocks = [f"layers.{i}" for i in range(config.num_layers)]
    blocks += [f"nextn.{k}.block" for k in range(config.num_nextn_predict_layers)]
    for block, gamma_N in zip(blocks, gamma_LN, strict=True):
        prefix = f"{block}.attention."
        if config.attention == "mla":
            _clip_mla(params, prefix, gamma_N, config)
        else:
            _clip_gqa(params, prefix, gamma_N, config, gqa)
    num_clipped, num_nonfinite, min_gamma, max_logit = torch.stack(
        [
            (gamma_LN < 1).sum().double(),
            (max_logit_LN.isnan() | max_logit_LN.isposinf()).sum().double(),
            gamma_LN.min().double(),
            max_logit_LN.max().double(),
        ]
    ).tolist()
    return QKClipReport(int(num_clipped), int(num_nonfinite), min_gamma, max_logit, gamma_LN)


def _check(max_logit_LN: Tensor, tau: float, config: ModelConfig) -> None:
    if not tau > 0:
        raise ConfigError(f"tau={tau}: the bound of the attention logits must be positive")
    expected = (config.num_layers + config.num_nextn_predict_layers, config.num_heads)
    assert tuple(max_logit_LN.shape) == expected, (tuple(max_logit_LN.shape), expected)


def _clip_mla(
    params: dict[str, nn.Parameter], prefix: str, gamma_N: Tensor, config: ModelConfig
) -> None:
    """logit = q_nope . k_nope + q_rope . k_rope; k_rope is shared, so q_rope takes all of gamma."""
    nope, rope = config.qk_nope_head_dim, config.qk_rope_head_dim
    root_N1, gamma_N1 = gamma_N.sqrt()[:, None], gamma_N[:, None]
    one_N1 = torch.ones_like(root_N1)
    query_NH = torch.cat([root_N1.expand(-1, nope), gamma_N1.expand(-1, rope)], dim=1)
    key_NH = torch.cat([root_N1.expand(-1, nope), one_N1.expand(-1, config.v_head_dim)], dim=1)
    _scale_rows(params, prefix + ("q" if config.q_lora_rank is None else "q_b"), query_NH)
    _scale_rows(params, prefix + "kv_b", key_NH)


def _clip_gqa(
    params: dict[str, nn.Parameter],
    prefix: str,
    gamma_N: Tensor,
    config: ModelConfig,
    mode: GQAMode,
) -> None:
    group = config.num_heads // config.kv_heads
    strongest_M = gamma_N.view(config.kv_heads, group).amin(dim=1)
    key_M = torch.ones_like(strongest_M) if mode == "query" else strongest_M.sqrt()
    logit_N = strongest_M.repeat_interleave(group) if mode == "group" else gamma_N
    query_N = logit_N / key_M.repeat_interleave(group)
    _scale_rows(params, prefix + "q", query_N[:, None].expand(-1, config.qk_dim))
    _scale_rows(params, prefix + "k", key_M[:, None].expand(-1, config.qk_dim))


def _scale_rows(params: dict[str, nn.Parameter], name: str, factor_NH: Tensor) -> None:
    """Scales the rows of a projection, and its bias and adapter if it has them."""
    factor = factor_NH.reshape(-1)
    weight = params[name + ".weight"]
    weight.mul_(factor.to(weight.device)[:, None])
    if name + ".bias" in params:
        params[name + ".bias"].mul_(factor.to(weight.device))
    if name + ".lora.B" in params:  # the projection is W + scale B A: its rows are those of W and B
        params[name + ".lora.B"].mul_(factor.to(weight.device)[:, None])
