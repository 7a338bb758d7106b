"""The transformer: trained, decoded and served by this one definition.

``forward`` takes packed tokens of any sequences and an ``AttentionContext`` that says what each
may see; trainer and decoder differ in that argument alone. It has no side effects on the module.

Letters: ``T`` packed tokens, ``D`` model width, ``V`` vocabulary, ``L`` layers (for routing: the
layers with experts), ``N`` heads, ``E`` experts, ``K`` experts of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from selenite.model.block import Block, BlockOutput
from selenite.model.config import ModelConfig
from selenite.model.layers import Linear, RMSNorm
from selenite.model.nextn import PredictionLayer
from selenite.ops.attention_context import AttentionContext
from selenite.ops.linear import linear
from selenite.ops.permute import look_up
from selenite.ops.rope import (
    RopeTable,
    inverse_frequencies,
    rope_table,
    yarn_inverse_frequencies,
    yarn_mscale,
)


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass returns, of the model's layers or of an extra prediction layer alone.

    Only ``hidden_TD`` has a gradient."""

    hidden_TD: Tensor  # after the final norm, in the compute dtype
    max_logit_LN: Tensor | None  # float32; None unless the context's stats ask for it
    expert_ids_LTK: Tensor | None  # int16, for replay; None for a dense model
    load_LE: Tensor | None  # int64 tokens by expert; None for a dense model
    num_other_L: Tensor | None
    """int64: tokens for which a layer's router would have chosen others than those replayed; None
    without replay."""


class Embedding(nn.Module):
    """One row of ``weight`` for each token."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, width))

    def forward(self, tokens_T: Tensor) -> Tensor:
        return look_up(self.weight, tokens_T)


class Transformer(nn.Module):
    """A model of ``config``, weights uninitialised until ``init_weights`` or a load.

    ``compute_dtype`` is the dtype of activations; parameters are float32 masters unless ``cast``.
    """

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.embed = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.head: Linear | None = None  # tied: the embedding is the head
        if not config.tie_embeddings:
            self.head = Linear(config.hidden_size, config.vocab_size)
        self.nextn = nn.ModuleList(
            PredictionLayer(config, depth)
            for depth in range(1, config.num_nextn_predict_layers + 1)
        )
        self.is_int8 = False  # set by model/pack.py
        self._rope: RopeTable | None = None

    @property
    def head_weight(self) -> Tensor:
        """The output head ``[V, D]``: its own, or the embedding's when tied."""
        return self.embed.weight if self.head is None else self.head.full_weight

    @property
    def rope(self) -> RopeTable:
        """Rotary table of all positions on the parameters' device, computed at first use."""
        if self._rope is None or self._rope.cos_JC.device != self.embed.weight.device:
            self._rope = build_rope(self.config, self.embed.weight.device)
        return self._rope

    def cast(self, dtype: torch.dtype) -> Self:
        """Stores matrices in ``dtype`` for inference; router and norms stay float32.

        The trainer casts the same weights at each product, so the results are the same.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and ".router." not in name:
                parameter.data = parameter.data.to(dtype)
        self.compute_dtype = dtype
        return self

    def forward(
        self,
        tokens_T: Tensor,
        positions_T: Tensor,
        context: AttentionContext,
        replay_LTK: Tensor | None = None,
        checkpoint: bool = False,
    ) -> ModelOutput:
        """Hidden states of packed tokens.

        Args:
            tokens_T: int64 token ids.
            positions_T: int64 position of each token in its sequence (the context's).
            context: what each row may see, where entries are stored, which statistics to return.
                Where it does not say how rows choose blocks, they do as in the model's config.
            replay_LTK: expert ids of another pass over the same tokens, to be used again, ascending
                in each row; in a row of -1 the router chooses.
            checkpoint: keep only each layer's input and recompute the layer in the backward pass.
        """
        assert positions_T is context.positions_T or torch.equal(positions_T, context.positions_T)
        if context.routing is None and (routing := self.config.routing()) is not None:
            context = replace(context, routing=(routing,) * len(context.segments))
        x_TD = self.embed(tokens_T).to(self.compute_dtype)
        rope = self.rope
        outputs: list[BlockOutput] = []
        routed = 0
        for layer, block in enumerate(self.layers):
            replay_TK = None
            if self.config.is_moe_layer(layer):
                replay_TK = None if replay_LTK is None else replay_LTK[routed].long()
                routed += 1
            out = _run(checkpoint, block, x_TD, rope, context, replay_TK)
            x_TD = out.x_TD
            outputs.append(out)
        return _model_output(self.norm(x_TD), outputs)

    def predict_further(
        self,
        depth: int,
        hidden_TD: Tensor,
        next_T: Tensor,
        positions_T: Tensor,
        context: AttentionContext,
        checkpoint: bool = False,
    ) -> ModelOutput:
        """Hidden states of the extra layer ``depth``, from 1: rows whose logits are those of the
        token ``depth + 1`` places after the row's own.

        Args:
            depth: which extra layer.
            hidden_TD: hidden states of the depth before, for depth 1 those of ``forward``; both
                are after their norm.
            next_T: int64: the token ``depth`` places after each row's own.
            positions_T: int64 position of each row in its sequence (the context's).
            context: as in ``forward``; with pages, the rows' entries of this layer are stored.
            checkpoint: as in ``forward``.
        """
        assert positions_T is context.positions_T or torch.equal(positions_T, context.positions_T)
        embedded_TD = self.embed(next_T).to(self.compute_dtype)
        layer = self.nextn[depth - 1]
        if context.routing is not None:  # these layers read everything
            context = replace(context, routing=None)
        out = _run(checkpoint, layer, embedded_TD, hidden_TD, self.rope, context)
        return _model_output(out.x_TD, [out])

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Logits ``[T, V]`` in the compute dtype."""
        if self.head is not None and self.head.packed is not None:
            return self.head(hidden_TD)
        return linear(hidden_TD, self.head_weight)


def _run(checkpoint: bool, layer: Callable[..., BlockOutput], *inputs: Any) -> BlockOutput:
    """The layer's output; with ``checkpoint``, computed again in the backward pass."""
    if checkpoint:
        return BlockOutput(*recompute(layer, *inputs, use_reentrant=False))
    return layer(*inputs)


def _model_output(hidden_TD: Tensor, outputs: Sequence[BlockOutput]) -> ModelOutput:
    maxima = [out.max_logit_N for out in outputs if out.max_logit_N is not None]
    ids = [out.expert_ids_TK for out in outputs if out.expert_ids_TK is not None]
    loads = [out.load_E for out in outputs if out.load_E is not None]
    others = [out.num_other for out in outputs if out.num_other is not None]
    return ModelOutput(
        hidden_TD=hidden_TD,
        max_logit_LN=torch.stack(maxima) if maxima else None,
        expert_ids_LTK=torch.stack(ids).to(torch.int16) if ids else None,
        load_LE=torch.stack(loads) if loads else None,
        num_other_L=torch.stack(others) if others else None,
    )


def build_rope(config: ModelConfig, device: torch.device | str = "cpu") -> RopeTable:
    """The rotary table of a model; with YaRN, its frequencies and cosine multiplier."""
    with torch.device(device):
        yarn, scale = config.yarn, 1.0
        if yarn is None:
            inverse_C = inverse_frequencies(config.rope_dim, config.rope_theta)
        else:
            inverse_C = yarn_inverse_frequencies(
                config.rope_dim,
                config.rope_theta,
                yarn.factor,
                yarn.original_max_positions,
                yarn.beta_fast,
                yarn.beta_slow,
            )
            scale = yarn_mscale(yarn.factor, yarn.mscale)
            scale /= yarn_mscale(yarn.factor, yarn.mscale_all_dim)
        return rope_table(inverse_C, config.max_positions, config.is_rope_interleaved, scale)
