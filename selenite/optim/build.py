"""From a model and a config to its optimizer: groups, row blocks and MuonClip put together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from selenite.config import Config
from selenite.model.config import ModelConfig
from selenite.optim.groups import ParameterGroup, attention_row_blocks, group_parameters
from selenite.optim.muon import MuonClip, RowBlocks, UpdateScale
from selenite.optim.qk_clip import GQAMode
from selenite.runtime import DTypeName, choose_dtype, torch_dtype


class OptimConfig(Config):
    """How weights are updated. The defaults are Moonlight's and Kimi K2's where those are known."""

    name: Literal["muonclip", "adamw"] = "muonclip"
    """``adamw`` gives every parameter to AdamW: the baseline, same code and schedule."""
    lr: float = Field(default=3e-3, gt=0, allow_inf_nan=False)
    """Peak learning rate of all groups."""
    update_scale: UpdateScale = "rms"
    """Factor on Muon's update: ``rms`` gives it AdamW's size, so that ``lr`` serves both.
    ``original`` is Jordan's sqrt(max(1, rows / columns)); ``lr`` is then not shared with AdamW: one
    that suits Muon is far too large for the embedding and the gains, and the other way round."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled; norm gains are decayed too."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's mu."""
    nesterov: bool = True
    """Orthogonalise G + mu M instead of M."""
    ns_coefficients: Literal["jordan", "quintic", "polar_express"] = "quintic"
    """``jordan`` is the papers' set; its updates are smaller than stated (docs/optim.md)."""
    ns_steps: int = Field(default=5, ge=1)
    """Newton-Schulz iterations; the quintic set has exactly 5."""
    ns_dtype: DTypeName = "auto"
    """Of the Newton-Schulz products: bfloat16 where the processor multiplies it natively."""
    router: Literal["muon", "adamw"] = "muon"
    """The optimizer of the routers' weights."""
    per_head: bool = False
    """Orthogonalise each attention head's rows by themselves."""
    split_kv_a: bool = False
    """MLA: orthogonalise the latent and the rotary rows of ``kv_a`` apart."""
    qk_clip_tau: float | None = Field(default=100.0, gt=0)
    """Bound of the attention logits; none switches QK-Clip off."""
    qk_clip_statistic: Literal["exact", "bound"] = "bound"
    """What is clipped on: the largest logit, at the price of one more product of queries and keys,
    or the log-sum-exp that the kernel returns anyway: never smaller, and larger by at most the
    logarithm of the number of keys, so that a head of even logits is clipped early."""
    qk_clip_gqa: GQAMode = "query"
    """What is scaled where query heads share a key head (optim/qk_clip.py)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averages."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""
    embedding_lr_multiplier: float = Field(default=1.0, gt=0)
    """Learning rate of the embedding and the output head, relative to ``lr``."""
    embedding_weight_decay: float | None = Field(default=None, ge=0)
    """Decay of the embedding and the output head; none: as the rest."""
    grad_clip: float | None = Field(default=1.0, gt=0)
    """Bound of the gradient's global norm; none switches clipping off."""
    router_bias_speed: float = Field(default=1e-3, ge=0)
    """Step of the routers' balancing bias (optim/balance.py); 0 freezes it."""


def build_groups(model: nn.Module, config: OptimConfig) -> list[ParameterGroup]:
    """The parameter groups of ``model`` under ``config``, to print or to count."""
    return group_parameters(
        model,
        matrices="muon" if config.name == "muonclip" else "adamw",
        router=config.router,
        row_blocks=_row_blocks(model, config),
    )


def build_optimizer(model: nn.Module, config: OptimConfig) -> MuonClip:
    """The optimizer of ``model``, its state created; ``model.config`` gives the head geometry.

    Raises ``ConfigError`` for a parameter that belongs to no group.
    """
    groups = []
    for group in build_groups(model, config):
        is_embedding = group.role in ("embedding", "head")
        decay = config.embedding_weight_decay if is_embedding else None
        groups.append(
            {
                "params": list(group.params),
                "kind": group.kind,
                "role": group.role,
                "base_lr": config.lr * (config.embedding_lr_multiplier if is_embedding else 1.0),
                "weight_decay": config.weight_decay if decay is None else decay,
            }
        )
    device = next(model.parameters()).device
    optimizer = MuonClip(
        groups,
        row_blocks=_row_blocks(model, config),
        momentum=config.momentum,
        nesterov=config.nesterov,
        ns_coefficients=config.ns_coefficients,
        ns_steps=config.ns_steps,
        ns_dtype=torch_dtype(choose_dtype(config.ns_dtype, device.type).value),
        update_scale=config.update_scale,
        betas=config.betas,
        eps=config.eps,
    )
    optimizer.init_state()
    return optimizer


def _row_blocks(model: nn.Module, config: OptimConfig) -> dict[Tensor, RowBlocks]:
    if not (config.per_head or config.split_kv_a):
        return {}
    model_config = model.config
    assert isinstance(model_config, ModelConfig), type(model_config)
    return attention_row_blocks(
        model, model_config, per_head=config.per_head, split_kv_a=config.split_kv_a
    )
