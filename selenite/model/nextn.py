"""An extra prediction layer: one token further than the layer before (multi-token prediction,
DeepSeek-V3, arXiv 2412.19437, section 2.2; ``num_nextn_predict_layers``).

    hidden of depth k - 1, row i ─► hidden_norm ─┐
    embedding of token i + k ─────► embed_norm ──┴► project ─► block ─► norm ─► token i + k + 1

The hidden states that come in are after the norm of the depth before, for depth 1 after the model's
final norm: the paper leaves open which side of it is meant, and this is what serving engines feed
the published layer with. Embedding and output head are the model's own.

Held by ``Transformer``, whose ``predict_further`` runs it; trained in ``train/nextn.py``, drafting
in ``model/draft.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selenite.model.block import Block, BlockOutput
from selenite.model.config import ModelConfig
from selenite.model.layers import Linear, RMSNorm
from selenite.ops.attention_context import AttentionContext
from selenite.ops.rope import RopeTable


class PredictionLayer(nn.Module):
    """The extra layer of ``depth``, from 1; it is counted and cached behind the model's layers."""

    def __init__(self, config: ModelConfig, depth: int) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.norm_eps
        self.embed_norm = RMSNorm(width, eps)
        self.hidden_norm = RMSNorm(width, eps)
        self.project = Linear(2 * width, width)
        self.block = Block(config, config.num_layers + depth - 1)
        self.norm = RMSNorm(width, eps)

    def forward(
        self, embedded_TD: Tensor, hidden_TD: Tensor, rope: RopeTable, context: AttentionContext
    ) -> BlockOutput:
        """``x_TD`` of the output is after the layer's norm: ready for the head and the next depth.

        Args:
            embedded_TD: embedding of the token ``depth`` places after each row's own.
            hidden_TD: hidden states of the depth before.
            rope: the model's rotary table.
            context: what each row may see.
        """
        # In the order of the published weight: its first columns are the embedding's.
        joined = torch.cat((self.embed_norm(embedded_TD), self.hidden_norm(hidden_TD)), -1)
        out = self.block(self.project(joined), rope, context)
        return out._replace(x_TD=self.norm(out.x_TD))
