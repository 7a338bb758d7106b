"""One transformer layer: attention and feed-forward, each behind a norm and a residual."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from selenite.model.attention import GroupedQueryAttention, LatentAttention
from selenite.model.config import ModelConfig
from selenite.model.feed_forward import FeedForward
from selenite.model.layers import RMSNorm
from selenite.model.moe import MoE
from selenite.ops.activation import add
from selenite.ops.attention_context import AttentionContext
from selenite.ops.rope import RopeTable


class BlockOutput(NamedTuple):
    """What a layer returns. Statistics are outputs, not side effects: recomputing the layer in
    the backward pass must not count a token twice."""

    x_TD: Tensor
    max_logit_N: Tensor | None  # None unless the context asks for it
    expert_ids_TK: Tensor | None  # None in a dense layer
    load_E: Tensor | None  # None in a dense layer
    num_other: Tensor | None  # None in a dense layer, and without replay (see ``Routing``)


class Block(nn.Module):
    """Layer ``layer`` of a model."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        latent = config.attention == "mla"
        self.attention = LatentAttention(config) if latent else GroupedQueryAttention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.ffn: MoE | FeedForward
        if config.moe is not None and config.is_moe_layer(layer):
            self.ffn = MoE(config.moe, config.hidden_size)
        else:
            self.ffn = FeedForward(config.hidden_size, config.ffn_hidden_size)

    def forward(
        self,
        x_TD: Tensor,
        rope: RopeTable,
        context: AttentionContext,
        replay_TK: Tensor | None = None,
    ) -> BlockOutput:
        """``replay_TK``: expert ids to use instead of choosing (see ``MoE.forward``)."""
        attended_TD, max_logit_N = self.attention(
            self.attention_norm(x_TD), rope, context, self.layer
        )
        x_TD = add(x_TD, attended_TD)
        normed_TD = self.ffn_norm(x_TD)
        if isinstance(self.ffn, MoE):
            out_TD, routing = self.ffn(normed_TD, replay_TK)
            used = routing.ids_TK, routing.load_E, routing.num_other
            return BlockOutput(add(x_TD, out_TD), max_logit_N, *used)
        return BlockOutput(add(x_TD, self.ffn(normed_TD)), max_logit_N, None, None, None)
