"""Vectors of texts: hidden states of the last layer, pooled and of length one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional as F

from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context

Pooling = Literal["last", "mean"]


@torch.inference_mode()
def embed(model: Transformer, token_ids: Sequence[int], pooling: Pooling) -> list[float]:
    """The vector of one text; computed in one pass, without the cache."""
    device = model.embed.weight.device
    tokens_T = torch.tensor(token_ids, dtype=torch.int64, device=device)
    context = packed_context([len(token_ids)])
    hidden_TD = model(tokens_T, context.positions_T.to(device), context).hidden_TD.float()
    pooled_D = hidden_TD[-1] if pooling == "last" else hidden_TD.mean(0)
    vector: list[float] = F.normalize(pooled_D, dim=0).tolist()
    return vector
