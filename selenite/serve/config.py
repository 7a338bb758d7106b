"""What a server is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from selenite.config import Config
from selenite.runtime import DTypeName
from selenite.serve.attention_mode import AttentionMode


class ServeConfig(Config):
    """Settings of ``selenite serve``; the command line has an option for most of them."""

    model: Path  # a run directory or a model directory
    served_model_name: str | None = None  # what clients call it; None: the directory's name
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)  # 0: any free one
    api_keys: tuple[str, ...] = ()  # none: everybody may ask
    admin: bool = False  # pausing, sleeping and swapping weights over HTTP
    adapters: dict[str, Path] = Field(default_factory=dict)  # LoRA, by the name clients use
    dtype: DTypeName = "auto"
    quantization: Literal["int8"] | None = None  # of the weights
    batch_invariant: bool = False
    profile: str | None = None  # how the model writes tool calls; None: found out
    layout: Literal["expanded", "latent"] = "expanded"
    """How entries of latent attention are cached: ``latent`` takes a fraction of the memory and
    computes more."""
    attention: AttentionMode | None = None
    """What rows read where a request does not say; None: as in the model's config."""
    page_size: int = Field(default=16, ge=1)
    cache_tokens: int | None = Field(default=None, ge=1)  # None: planned by the model's size
    max_running: int = Field(default=64, ge=1)
    max_step_tokens: int = Field(default=512, ge=1)
    request_timeout: float = Field(default=1800, gt=0)  # seconds, from a request to its last token
    shutdown_timeout: float = Field(default=30, ge=0)  # seconds for what runs at SIGTERM
    max_body_bytes: int = Field(default=8 * 2**20, ge=1)
    keep_alive: float = Field(default=15, gt=0)  # seconds of silence before a stream's comment
    conversation_tokens: int = Field(default=4_000_000, ge=0)
    """Ids that are remembered of recent conversations, at most."""

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.served_model_name or self.model.resolve().name

    @property
    def max_waiting(self) -> int:
        """Completions that may wait for a place among the running ones."""
        return 4 * self.max_running

    @model_validator(mode="after")
    def _every_running_sequence_has_its_row(self) -> Self:
        if self.max_step_tokens < self.max_running:
            raise ValueError(
                f"max_step_tokens={self.max_step_tokens}: must be at least "
                f"max_running={self.max_running}, or some that run would wait for others; raise it "
                "(--max-num-batched-tokens), or lower --max-num-seqs"
            )
        return self

    @model_validator(mode="after")
    def _no_adapter_has_the_models_name(self) -> Self:
        if self.name in self.adapters:
            raise ValueError(
                f"--lora-modules {self.name}={self.adapters[self.name]}: the model is called "
                f"{self.name} too; give another name, or the model one (--served-model-name)"
            )
        return self

    @model_validator(mode="after")
    def _keys_guard_what_they_must(self) -> Self:
        if not all(key.strip() for key in self.api_keys):
            raise ValueError("api_keys: an empty key is no key; give another, or none at all")
        is_local = self.host in ("127.0.0.1", "::1", "localhost")
        if self.admin and not self.api_keys and not is_local:
            raise ValueError(
                f"admin with host={self.host} and no key lets anybody stop or replace the model; "
                "give --api-key, or listen on 127.0.0.1"
            )
        return self
