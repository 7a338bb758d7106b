"""Dimensions of a model, and the presets by name.

Two blocks are described: the DeepSeek-V3 / Kimi K2 block (latent attention, mixture of experts)
and the Llama block (grouped-query attention, dense feed-forward). Field names follow this
project; ``model/hf_adapter.py`` maps them to Hugging Face's ``config.json``.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from selenite.config import Config
from selenite.ops.attention_context import BlockRouting


class YarnConfig(Config):
    """YaRN context extension (arXiv 2309.00071, with DeepSeek's softmax multiplier)."""

    factor: float = Field(gt=1)
    original_max_positions: int = Field(gt=0)
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0


class MobaConfig(Config):
    """Rows read some blocks of keys (mixture of block attention, arXiv 2502.13189)."""

    block_size: int = Field(gt=0)
    """Keys of a block. To be served it must be a multiple of the cache's page size (16)."""
    top_k: int = Field(gt=0)
    """Blocks that a row reads; its own is one of them, as in the paper."""
    sink: bool = False
    """The sequence's first block is always one of them."""
    share: Literal["head", "group"] = "head"
    """What chooses: each query head, as in the paper, or all that read the same cached keys (of a
    key/value head; with ``attention='mla'``, of the layer), so that these are read once."""
    full_layers: tuple[int, ...] = ()
    """Layers that read everything; -1 is the last one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sink and self.top_k < 2:
            raise ValueError(
                f"top_k={self.top_k}: the row's own block and the sink are two; take at least 2, "
                "or sink=false"
            )
        return self


class MoEConfig(Config):
    """A mixture-of-experts feed-forward layer (DeepSeek-V3, section 2.1.2; ``noaux_tc``)."""

    num_experts: int = Field(gt=1, le=16_384)
    experts_per_token: int = Field(gt=0)
    expert_hidden_size: int = Field(gt=0)
    num_shared_experts: int = Field(default=1, ge=0)
    num_groups: int = Field(default=1, gt=0)
    """Experts are routed within the best ``topk_groups`` of this many groups."""
    topk_groups: int = Field(default=1, gt=0)
    routed_scaling_factor: float = 1.0
    normalize_weights: bool = True
    first_dense_layers: int = Field(default=1, ge=0)
    """Layers before this index have a dense feed-forward of ``ffn_hidden_size``."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token={self.experts_per_token} exceeds num_experts={self.num_experts}"
            )
        if self.num_experts % self.num_groups:
            raise ValueError(
                f"num_experts={self.num_experts} must be a multiple of num_groups={self.num_groups}"
            )
        if self.topk_groups > self.num_groups:
            raise ValueError(f"topk_groups={self.topk_groups} exceeds num_groups={self.num_groups}")
        if self.num_groups > 1 and self.num_experts // self.num_groups < 2:
            raise ValueError(
                f"num_groups={self.num_groups}: a group is ranked by its two best experts, "
                f"so it needs at least 2 of the {self.num_experts} experts"
            )
        reachable = self.topk_groups * (self.num_experts // self.num_groups)
        if self.experts_per_token > reachable:
            raise ValueError(
                f"experts_per_token={self.experts_per_token} exceeds the {reachable} experts "
                f"in topk_groups={self.topk_groups} groups"
            )
        return self


class ModelConfig(Config):
    """Dimensions of a transformer. ``attention`` and ``moe`` choose the kind of block."""

    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_layers: int = Field(gt=0, le=1024)
    num_heads: int = Field(gt=0)
    ffn_hidden_size: int = Field(gt=0)
    """Width of the dense feed-forward layers."""
    max_positions: int = Field(default=4096, gt=0)
    attention: Literal["mla", "gqa"] = "mla"

    q_lora_rank: int | None = Field(default=None, gt=0)
    """MLA: rank of the query projection; none projects the query directly."""
    kv_lora_rank: int = Field(default=0, ge=0)
    qk_nope_head_dim: int = Field(default=0, ge=0)
    qk_rope_head_dim: int = Field(default=0, ge=0)
    v_head_dim: int = Field(default=0, ge=0)

    num_kv_heads: int | None = Field(default=None, gt=0)
    """GQA: key and value heads; none means one for each query head."""
    head_dim: int | None = Field(default=None, gt=0)
    """GQA: width of a head; none means hidden_size / num_heads."""

    moba: MobaConfig | None = None
    """None: full attention. Any model can be trained and served in both modes, since both have the
    same weights."""

    moe: MoEConfig | None = None
    num_nextn_predict_layers: int = Field(default=0, ge=0, le=16)
    """Extra layers with experts behind the model, each predicting one token further
    (``model/nextn.py``): trained beside it, and a draft head for decoding."""
    norm_eps: float = Field(default=1e-6, gt=0)
    lora_norm_eps: float = Field(default=1e-6, gt=0)
    """Of the norms on the latent query and key-value; the published models fix it at 1e-6."""
    rope_theta: float = Field(default=50_000.0, gt=1)
    rope_interleaved: bool | None = None
    """Rotary pairs are (2i, 2i+1); false: (i, i + H/2). None: as the published checkpoints have
    it, which is true for MLA and false for GQA."""
    yarn: YarnConfig | None = None
    tie_embeddings: bool = False
    init_std: float = Field(default=0.02, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        mla_widths = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        if self.attention == "mla":
            for name in mla_widths:
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)}: attention='mla' needs it set")
            if self.num_kv_heads is not None or self.head_dim is not None:
                raise ValueError("num_kv_heads and head_dim belong to attention='gqa'")
        elif given := [n for n in ("q_lora_rank", *mla_widths) if getattr(self, n)]:
            raise ValueError(f"{', '.join(given)}: belong to attention='mla'")
        elif self.head_dim is None and self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_heads={self.num_heads}; "
                "set head_dim"
            )
        elif self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.kv_heads}"
            )
        if self.moe is not None:
            widths = {"hidden_size": self.hidden_size}
            widths["moe.expert_hidden_size"] = self.moe.expert_hidden_size
            for name, width in widths.items():
                if width % 8:
                    raise ValueError(
                        f"{name}={width}: grouped products need rows of whole 16 bytes, which in "
                        f"bfloat16 are 8 values; take {width + -width % 8}"
                    )
        for layer in self.moba.full_layers if self.moba else ():
            if not -self.num_layers <= layer < self.num_layers:
                raise ValueError(
                    f"moba.full_layers has {layer}, of {self.num_layers} layers; they are counted "
                    "from 0, or from -1 backwards"
                )
        if self.num_nextn_predict_layers:
            self._check_nextn(self.num_nextn_predict_layers)
        if self.attention == "gqa" and self.rope_interleaved:
            raise ValueError(
                "rope_interleaved=true: no format has it with attention='gqa'; leave it out"
            )
        if self.rope_dim % 2:
            raise ValueError(f"the rotary width {self.rope_dim} must be even")
        return self

    def _check_nextn(self, layers: int) -> None:
        if self.attention != "mla":
            raise ValueError(
                f"num_nextn_predict_layers={layers}: extra prediction layers belong to "
                "attention='mla'; leave it out"
            )
        if not self.is_moe_layer(self.num_layers - 1):
            raise ValueError(
                f"num_nextn_predict_layers={layers}: extra prediction layers have experts like "
                "the layers before them, but the last layer has none; set moe, with "
                f"first_dense_layers below num_layers={self.num_layers}"
            )

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values as attention sees them (MLA: expanded, one per query head)."""
        return self.num_kv_heads or self.num_heads

    @property
    def qk_dim(self) -> int:
        """Width of a query or key head."""
        if self.attention == "mla":
            return self.qk_nope_head_dim + self.qk_rope_head_dim
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def v_dim(self) -> int:
        """Width of a value head."""
        return self.v_head_dim if self.attention == "mla" else self.qk_dim

    @property
    def rope_dim(self) -> int:
        """Width of the rotated part of a head."""
        return self.qk_rope_head_dim if self.attention == "mla" else self.qk_dim

    @property
    def is_rope_interleaved(self) -> bool:
        """``rope_interleaved``, or what it is where it is none."""
        return self.attention == "mla" if self.rope_interleaved is None else self.rope_interleaved

    def routing(self, moba: MobaConfig | None = None) -> BlockRouting | None:
        """How rows choose blocks, by ``moba`` or else by the model's own; None: not at all."""
        moba = moba or self.moba
        if moba is None:
            return None
        sharing = self.num_heads if self.attention == "mla" else self.num_heads // self.kv_heads
        return BlockRouting(
            block_size=moba.block_size,
            top_k=moba.top_k,
            has_sink=moba.sink,
            heads_together=sharing if moba.share == "group" else 1,
            full_layers=tuple(sorted({layer % self.num_layers for layer in moba.full_layers})),
        )

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer ``layer`` (from 0) has experts."""
        return self.moe is not None and layer >= self.moe.first_dense_layers


def _k2_attention(num_heads: int, q_lora_rank: int | None) -> dict[str, object]:
    return {
        "attention": "mla",
        "num_heads": num_heads,
        "q_lora_rank": q_lora_rank,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }


PRESETS: dict[str, dict[str, object]] = {
    # The quickstart: every part of K2 at a size that two CPU cores train in minutes.
    "nano": {
        "vocab_size": 4096,
        "hidden_size": 256,
        "num_layers": 6,
        "num_heads": 4,
        "q_lora_rank": 128,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "ffn_hidden_size": 768,
        "max_positions": 2048,
        "moe": {
            "num_experts": 32,
            "experts_per_token": 4,
            "expert_hidden_size": 128,
            "num_shared_experts": 1,
            "routed_scaling_factor": 1.997,
        },
    },
    # One GPU, or a night on a CPU.
    "mini": {
        "vocab_size": 32768,
        "hidden_size": 768,
        "num_layers": 12,
        "num_heads": 12,
        "q_lora_rank": 384,
        "kv_lora_rank": 192,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32,
        "v_head_dim": 64,
        "ffn_hidden_size": 3072,
        "max_positions": 4096,
        "moe": {
            "num_experts": 64,
            "experts_per_token": 6,
            "expert_hidden_size": 384,
            "num_shared_experts": 1,
            "routed_scaling_factor": 2.446,
        },
    },
    # A Llama-style model: the plain ground for optimizer comparisons.
    "dense30m": {
        "vocab_size": 8192,
        "hidden_size": 512,
        "num_layers": 8,
        "num_heads": 8,
        "num_kv_heads": 4,
        "ffn_hidden_size": 1408,
        "attention": "gqa",
        "max_positions": 4096,
        "norm_eps": 1e-5,
    },
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "num_layers": 30,
        "num_heads": 9,
        "num_kv_heads": 3,
        "ffn_hidden_size": 1536,
        "attention": "gqa",
        "max_positions": 8192,
        "rope_theta": 100_000.0,
        "norm_eps": 1e-5,
        "tie_embeddings": True,
    },
    "moonlight-16b-a3b": {
        "vocab_size": 163_840,
        "hidden_size": 2048,
        "num_layers": 27,
        **_k2_attention(16, None),
        "ffn_hidden_size": 11_264,
        "max_positions": 8192,
        "norm_eps": 1e-5,
        "moe": {
            "num_experts": 64,
            "experts_per_token": 6,
            "expert_hidden_size": 1408,
            "num_shared_experts": 2,
            "routed_scaling_factor": 2.446,
        },
    },
    "kimi-k2": {
        "vocab_size": 163_840,
        "hidden_size": 7168,
        "num_layers": 61,
        **_k2_attention(64, 1536),
        "ffn_hidden_size": 18_432,
        "max_positions": 131_072,
        "yarn": {
            "factor": 32.0,
            "original_max_positions": 4096,
            "beta_fast": 1.0,
            "beta_slow": 1.0,
        },
        "moe": {
            "num_experts": 384,
            "experts_per_token": 8,
            "expert_hidden_size": 2048,
            "num_shared_experts": 1,
            "routed_scaling_factor": 2.827,
        },
    },
    "deepseek-v3": {
        "vocab_size": 129_280,
        "hidden_size": 7168,
        "num_layers": 61,
        **_k2_attention(128, 1536),
        "ffn_hidden_size": 18_432,
        "max_positions": 163_840,
        "rope_theta": 10_000.0,
        "yarn": {"factor": 40.0, "original_max_positions": 4096},
        "num_nextn_predict_layers": 1,
        "moe": {
            "num_experts": 256,
            "experts_per_token": 8,
            "expert_hidden_size": 2048,
            "num_shared_experts": 1,
            "num_groups": 8,
            "topk_groups": 4,
            "routed_scaling_factor": 2.5,
            "first_dense_layers": 3,
        },
    },
}


def preset(name: str, **changes: object) -> ModelConfig:
    """The preset ``name`` with some fields changed; raises ``ValueError`` for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"model preset {name!r} is unknown; there are: {', '.join(PRESETS)}")
    return ModelConfig.model_validate({**PRESETS[name], **changes})
