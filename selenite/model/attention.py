"""Latent attention (MLA) and grouped-query attention (GQA), over packed rows.

MLA (DeepSeek-V2, section 2.1) caches one latent vector and one rotated key for all heads. What is
cached is ``entry``; ``expand`` makes each head's keys and values of it; ``absorb`` moves the key
expansion to the query side, so that attention can read latents as they are. The store's layout
says which of the two a cached step uses; training always expands.

Letters: ``R`` latent rank, ``N`` heads, ``M`` key/value heads, ``H`` query/key width,
``W`` value width, ``S`` slots.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from selenite.model.config import ModelConfig
from selenite.model.layers import Linear, RMSNorm
from selenite.ops.attention import attend
from selenite.ops.attention_context import Attended, AttentionContext
from selenite.ops.linear import head_linear
from selenite.ops.rope import RopeTable, yarn_mscale

Entry = tuple[Tensor, ...]


class LatentAttention(nn.Module):
    """Multi-head latent attention, with or without a low-rank query."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, rank = config.hidden_size, config.kv_lora_rank
        if config.q_lora_rank is None:
            self.q = Linear(width, config.num_heads * config.qk_dim)
        else:
            self.q_a = Linear(width, config.q_lora_rank)
            self.q_a_norm = RMSNorm(config.q_lora_rank, config.lora_norm_eps)
            self.q_b = Linear(config.q_lora_rank, config.num_heads * config.qk_dim)
        self.kv_a = Linear(width, rank + config.qk_rope_head_dim)
        self.kv_a_norm = RMSNorm(rank, config.lora_norm_eps)
        self.kv_b = Linear(rank, config.num_heads * (config.qk_nope_head_dim + config.v_head_dim))
        self.o = Linear(config.num_heads * config.v_head_dim, width)
        self.scale = softmax_scale(config)

    def query(self, x_TD: Tensor, rope: RopeTable, positions_T: Tensor) -> Tensor:
        """Rotated queries ``[T, N, nope + rope]``."""
        low_rank = self.config.q_lora_rank is not None
        q = self.q_b(self.q_a_norm(self.q_a(x_TD))) if low_rank else self.q(x_TD)
        q_TNH = q.view(len(x_TD), self.config.num_heads, self.config.qk_dim)
        return rope.rotate(q_TNH, positions_T, copied=self.config.qk_nope_head_dim)

    def entry(self, x_TD: Tensor, rope: RopeTable, positions_T: Tensor) -> Entry:
        """What is cached of a token: its latent ``[T, R]`` and the rotated key ``[T, 1, rope]``."""
        latent_TR, key = self.kv_a(x_TD).split((self.config.kv_lora_rank, self.config.rope_dim), -1)
        return self.kv_a_norm(latent_TR), rope.rotate(key[:, None], positions_T)

    def expand(self, entry: Entry) -> Entry:
        """Keys ``[T, N, nope + rope]`` and values ``[T, N, v]`` of every head."""
        latent_TR, key_T1H = entry
        config = self.config
        kv = self.kv_b(latent_TR).view(len(latent_TR), config.num_heads, -1)
        nope, v_TNW = kv.split((config.qk_nope_head_dim, config.v_head_dim), -1)
        k_TNH = torch.cat((nope, key_T1H.expand(-1, config.num_heads, -1)), -1)
        return k_TNH, v_TNW

    def absorb(self, q_TNH: Tensor) -> Tensor:
        """Queries against ``latent | shared key`` entries: ``[T, N, R + rope]``."""
        nope, rotary = q_TNH.split((self.config.qk_nope_head_dim, self.config.rope_dim), -1)
        k_NHR = self._kv_b_by_head()[:, : self.config.qk_nope_head_dim]
        return torch.cat((head_linear(nope, k_NHR), rotary), -1)

    def _kv_b_by_head(self) -> Tensor:
        return self.kv_b.full_weight.view(self.config.num_heads, -1, self.config.kv_lora_rank)

    def forward(
        self, x_TD: Tensor, rope: RopeTable, context: AttentionContext, layer: int
    ) -> tuple[Tensor, Tensor | None]:
        """Output ``[T, D]`` and the heads' maximum logit ``[N]`` if the context asks for it."""
        q_TNH = self.query(x_TD, rope, context.positions_T)
        entry = self.entry(x_TD, rope, context.positions_T)
        if context.pages is not None and context.pages.store.layout == "latent":
            attended = self._attend_latent(q_TNH, entry, context, layer)
        else:
            k_SMH, v_SMW = cached(self.expand(entry), context, layer)
            attended = attend(q_TNH, k_SMH, v_SMW, context, self.scale, layer)
        return self.o(attended.out_TNW.flatten(1)), attended.max_logit_N

    def _attend_latent(
        self, q_TNH: Tensor, entry: Entry, context: AttentionContext, layer: int
    ) -> Attended:
        latent_TR, key_T1H = entry
        (k_S1H,) = cached((torch.cat((latent_TR[:, None], key_T1H), -1),), context, layer)
        v_S1R = k_S1H[..., : self.config.kv_lora_rank]
        latent = attend(self.absorb(q_TNH), k_S1H, v_S1R, context, self.scale, layer)
        v_NRW = self._kv_b_by_head()[:, self.config.qk_nope_head_dim :].transpose(1, 2)
        return replace(latent, out_TNW=head_linear(latent.out_TNW, v_NRW))


class GroupedQueryAttention(nn.Module):
    """Llama's attention: several query heads share a key/value head (arXiv 2305.13245)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, head = config.hidden_size, config.qk_dim
        self.q = Linear(width, config.num_heads * head)
        self.k = Linear(width, config.kv_heads * head)
        self.v = Linear(width, config.kv_heads * head)
        self.o = Linear(config.num_heads * head, width)
        self.scale = softmax_scale(config)

    def entry(self, x_TD: Tensor, rope: RopeTable, positions_T: Tensor) -> Entry:
        """What is cached of a token: rotated keys and values, each ``[T, M, H]``."""
        shape = (len(x_TD), self.config.kv_heads, self.config.qk_dim)
        return rope.rotate(self.k(x_TD).view(shape), positions_T), self.v(x_TD).view(shape)

    def forward(
        self, x_TD: Tensor, rope: RopeTable, context: AttentionContext, layer: int
    ) -> tuple[Tensor, Tensor | None]:
        """Output ``[T, D]`` and the heads' maximum logit ``[N]`` if the context asks for it."""
        q_TNH = self.q(x_TD).view(len(x_TD), self.config.num_heads, self.config.qk_dim)
        q_TNH = rope.rotate(q_TNH, context.positions_T)
        entry = self.entry(x_TD, rope, context.positions_T)
        k_SMH, v_SMW = cached(entry, context, layer)
        attended = attend(q_TNH, k_SMH, v_SMW, context, self.scale, layer)
        return self.o(attended.out_TNW.flatten(1)), attended.max_logit_N


def cached(entry: Entry, context: AttentionContext, layer: int) -> Entry:
    """The keys of the step: the rows' own entries, or all slots after the rows were stored."""
    if context.pages is None:
        return entry
    context.pages.store.write(layer, entry, context.pages.write_T)
    if context.filled_X is not None and any(context.chooses(layer) or ()):
        context.pages.store.pool(layer, context.filled_X)
    return context.pages.store.read(layer)


def softmax_scale(config: ModelConfig) -> float:
    """``H ** -0.5``, times YaRN's multiplier squared for latent attention (DeepSeek's form)."""
    scale = config.qk_dim**-0.5
    if config.attention == "mla" and config.yarn is not None:
        scale *= yarn_mscale(config.yarn.factor, config.yarn.mscale_all_dim) ** 2
    return scale
