"""What a model costs, from its dimensions alone: parameters, FLOPs and cache bytes.

Nothing is built, so a trillion-parameter config is counted in microseconds. The tests compare
with the parameters of real modules and with published counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from selenite.model.config import ModelConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by where they are; the router's balancing bias is a buffer and not counted."""

    embedding: int
    head: int  # 0 when tied
    attention: int  # norms of the latents included
    dense_ffn: int
    routers: int
    routed_experts: int
    shared_experts: int
    norms: int
    active_routed_experts: int  # of the routed experts, those that one token uses
    nextn: int
    """In the extra prediction layers, whose embedding and head are the model's. No other number
    here includes them: published sizes are those of the model without."""

    @property
    def total(self) -> int:
        """All parameters but those of extra prediction layers."""
        return self.embedding + self.head + self.without_embeddings

    @property
    def without_embeddings(self) -> int:
        """All but embedding and head: how Moonlight and Kimi K2 state their sizes."""
        shared = self.attention + self.dense_ffn + self.routers + self.shared_experts + self.norms
        return shared + self.routed_experts

    @property
    def active_without_embeddings(self) -> int:
        """Parameters that one token uses, but embedding and head."""
        return self.without_embeddings - self.routed_experts + self.active_routed_experts

    @property
    def active(self) -> int:
        """Parameters that one token uses, embedding and head included."""
        return self.active_without_embeddings + self.embedding + self.head


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Parameters of a model of these dimensions."""
    D, L = config.hidden_size, config.num_layers
    moe_layers = sum(config.is_moe_layer(layer) for layer in range(L))
    expert = active = routed = shared = routers = 0
    if config.moe is not None:
        expert = 3 * D * config.moe.expert_hidden_size
        routed = moe_layers * config.moe.num_experts * expert
        active = moe_layers * config.moe.experts_per_token * expert
        shared = moe_layers * config.moe.num_shared_experts * expert
        routers = moe_layers * config.moe.num_experts * D
    return ParameterCount(
        embedding=config.vocab_size * D,
        head=0 if config.tie_embeddings else config.vocab_size * D,
        attention=L * (_attention_matrices(config) + _latent_norms(config)),
        dense_ffn=(L - moe_layers) * 3 * D * config.ffn_hidden_size,
        routers=routers,
        routed_experts=routed,
        shared_experts=shared,
        norms=(2 * L + 1) * D,
        active_routed_experts=active,
        nextn=_nextn_parameters(config),
    )


def _nextn_parameters(config: ModelConfig) -> int:
    """Parameters of all extra prediction layers."""
    if config.moe is None:
        return 0
    gains = _latent_norms(config) + 5 * config.hidden_size
    layer = _nextn_matrices(config, config.moe.num_experts) + gains
    return config.num_nextn_predict_layers * layer


def _nextn_matrices(config: ModelConfig, num_experts: int) -> int:
    """Matrix parameters of one extra prediction layer, with ``num_experts`` of the routed ones."""
    assert config.moe is not None
    D, moe = config.hidden_size, config.moe
    experts = (num_experts + moe.num_shared_experts) * 3 * D * moe.expert_hidden_size
    return 2 * D * D + _attention_matrices(config) + moe.num_experts * D + experts


def _attention_matrices(config: ModelConfig) -> int:
    D, N = config.hidden_size, config.num_heads
    if config.attention == "gqa":
        return D * config.qk_dim * 2 * (N + config.kv_heads)
    if config.q_lora_rank is None:
        query = D * N * config.qk_dim
    else:
        query = config.q_lora_rank * (D + N * config.qk_dim)
    key_value = D * (config.kv_lora_rank + config.qk_rope_head_dim)
    key_value += config.kv_lora_rank * N * (config.qk_nope_head_dim + config.v_head_dim)
    return query + key_value + N * config.v_head_dim * D


def _latent_norms(config: ModelConfig) -> int:
    return config.kv_lora_rank + (config.q_lora_rank or 0)


def matrix_parameters(config: ModelConfig) -> int:
    """Parameters that one token is multiplied by: active matrices and the head, not the embedding
    look-up and not the gains of norms."""
    count = count_parameters(config)
    gains = count.norms + config.num_layers * _latent_norms(config)
    head = config.vocab_size * config.hidden_size
    return count.active_without_embeddings - gains + head


def forward_flops_per_token(config: ModelConfig, mean_context: float) -> float:
    """FLOPs of one token's forward pass: 2 per matrix parameter, plus attention.

    Args:
        config: the model.
        mean_context: keys that a token sees on average; half the sequence length for causal
            attention over whole sequences.
    """
    attention = 2 * config.num_layers * config.num_heads * (config.qk_dim + config.v_dim)
    return 2.0 * matrix_parameters(config) + attention * mean_context


def keys_read(config: ModelConfig, positions_T: np.ndarray) -> float:
    """Keys that tokens at these positions read, summed over the tokens, mean over the layers; what
    choosing blocks takes is not counted."""
    seen = float((positions_T + 1).sum())
    moba = config.moba
    if moba is None:
        return seen
    own = positions_T % moba.block_size + 1
    chosen = np.minimum(positions_T // moba.block_size, moba.top_k - 1) * moba.block_size
    full = len({layer % config.num_layers for layer in moba.full_layers}) / config.num_layers
    return full * seen + (1 - full) * float((own + chosen).sum())


def nextn_flops_per_token(config: ModelConfig, mean_context: float) -> float:
    """FLOPs of one token's forward pass through the extra prediction layers, the head once each."""
    if config.moe is None:
        return 0.0
    head = config.vocab_size * config.hidden_size
    matrices = _nextn_matrices(config, config.moe.experts_per_token) + head
    attention = 2 * config.num_heads * (config.qk_dim + config.v_dim) * mean_context
    return config.num_nextn_predict_layers * (2.0 * matrices + attention)


def forward_backward_flops_per_token(
    config: ModelConfig, mean_context: float, adapter_parameters: int | None = None
) -> float:
    """FLOPs of one token's forward and backward pass: 6 per matrix parameter, plus attention.

    Recomputation is not counted, so that it shows as lost utilisation; extra prediction layers are
    counted by ``nextn_flops_per_token``.

    Args:
        config: the model.
        mean_context: as in ``forward_flops_per_token``.
        adapter_parameters: with LoRA, those that one token is multiplied by: 6 for each of them,
            and 4 for each of the frozen ones, which get no gradient. None: all are trained.
    """
    flops = 3.0 * forward_flops_per_token(config, mean_context)
    if adapter_parameters is None:
        return flops
    return flops - 2.0 * matrix_parameters(config) + 6.0 * adapter_parameters


def training_flops_per_token(
    config: ModelConfig, seq_len: int, adapter_parameters: int | None = None
) -> float:
    """The same over sequences of ``seq_len``, of which causal attention sees half, or the blocks
    that rows read."""
    mean_context = seq_len / 2
    if config.moba is not None:
        mean_context = keys_read(config, np.arange(seq_len)) / seq_len
    return forward_backward_flops_per_token(config, mean_context, adapter_parameters)


def cache_bytes_per_token(
    config: ModelConfig,
    layout: Literal["latent", "expanded"] = "latent",
    bytes_per_value: int = 2,
) -> int:
    """Bytes that a cached token takes over all layers, extra prediction layers included (the layout
    matters for MLA only)."""
    if config.attention == "mla" and layout == "latent":
        values = config.kv_lora_rank + config.qk_rope_head_dim
    else:
        values = config.kv_heads * (config.qk_dim + config.v_dim)
    layers = config.num_layers + config.num_nextn_predict_layers
    return layers * values * bytes_per_value


def slot_bias_bytes(config: ModelConfig, layout: Literal["latent", "expanded"] = "latent") -> int:
    """Bytes that the float32 biases of a slot take over the model's layers, where slots may be
    merged."""
    is_latent = config.attention == "mla" and layout == "latent"
    return 0 if is_latent else 4 * config.num_layers * config.num_heads


def page_sum_bytes(config: ModelConfig, layout: Literal["latent", "expanded"] = "latent") -> int:
    """Bytes that the float32 sums of a page's keys take over the model's layers, where rows choose
    blocks by them."""
    is_latent = config.attention == "mla" and layout == "latent"
    latent = config.kv_lora_rank + config.qk_rope_head_dim
    return 4 * config.num_layers * (latent if is_latent else config.kv_heads * config.qk_dim)
