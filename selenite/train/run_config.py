"""What every run that trains a language model is told: its length, its batches, its machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.lora import LoRAConfig, target_paths
from selenite.optim.build import OptimConfig
from selenite.runtime import DTypeName
from selenite.train.loop import LoopConfig


def check_adapters(lora: LoRAConfig, model: ModelConfig, optim: OptimConfig) -> None:
    """Raises ``ConfigError`` for targets that the model has not got, and for what would change the
    frozen weights: the adapters would not fit them, nor would a run that goes on be the same."""
    target_paths(model, lora.targets)
    moving = {}
    if optim.qk_clip_tau is not None:
        moving[f"optim.qk_clip_tau={optim.qk_clip_tau}"] = "optim.qk_clip_tau=none"
    if optim.router_bias_speed and model.moe is not None:
        speed = optim.router_bias_speed
        moving[f"optim.router_bias_speed={speed}"] = "optim.router_bias_speed=0"
    if moving:
        raise ConfigError(
            f"lora: {' and '.join(moving)} would change what is frozen, so that the adapter "
            f"would not fit train.init_from; set {' and '.join(moving.values())}"
        )


def check_switch(train: RunConfig, model: ModelConfig) -> None:
    """Raises ``ConfigError`` where a run is to switch to what its model does all along."""
    if train.full_attention_from is not None and model.moba is None:
        raise ConfigError(
            f"train.full_attention_from={train.full_attention_from}: the model reads everything "
            "from the first step on; give it model.moba, or leave this out"
        )


class RunConfig(LoopConfig):
    """Length, batch and habits of a run. Exactly one of ``tokens`` and ``steps`` is given."""

    tokens: int | None = Field(default=None, gt=0)
    """Training tokens; the number of steps follows."""
    steps: int | None = Field(default=None, gt=0)
    seq_len: int = Field(default=1024, gt=0)
    """The most tokens that attend to each other."""
    batch_tokens: int = Field(default=32_768, gt=0)
    """Tokens of one optimizer step."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Tokens of one forward and backward pass: memory grows with it. A document that its edge cuts
    is trained on in two pieces, and conversations that are read together find room in it; besides
    that, the update does not depend on it."""
    eval_tokens: int = Field(default=131_072, gt=0)
    """Held-out tokens of one evaluation, the same every time."""
    sample_tokens: int = Field(default=48, gt=0)
    """The most tokens of a sample."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the initial weights and of the data's order."""
    dtype: DTypeName = "auto"
    """Of activations; weights and optimizer state are float32."""
    device: str = "auto"
    batch_invariant: bool = False
    """Compute in float32 so that a row's bits do not depend on the rows beside it: the log-probs
    of training then equal those of cached decoding exactly. Slower."""
    nextn_loss_weight: float = Field(default=0.3, gt=0)
    """Weight of the extra prediction layers' loss, if ``model.num_nextn_predict_layers`` gives the
    model any. DeepSeek-V3 has 0.3, and 0.1 for the last third of its tokens."""
    full_attention_from: float | None = Field(default=None, gt=0, lt=1)
    """For a model with ``moba``: the share of the steps after which its rows read everything, up to
    the end (0.9 in the paper); the model that comes out says so. None: never."""
    checkpoint_activations: bool = False
    """Recompute each layer in the backward pass: less memory, about a third more time."""
    data_cache: Path = Path(".cache/corpora")
    """Where tokenised corpora are kept and found again."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the run."""
        if self.steps is not None:
            return self.steps
        assert self.tokens is not None
        return math.ceil(self.tokens / self.batch_tokens)

    @property
    def switch_step(self) -> int | None:
        """The first step that reads everything (``full_attention_from``): there is one before it,
        and it is one. None: no switch."""
        share = self.full_attention_from
        if share is None:
            return None
        return max(1, min(self.num_steps - 1, round(share * self.num_steps)))

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one optimizer step."""
        return self.batch_tokens // self.micro_batch_tokens

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if (self.tokens is None) == (self.steps is None):
            raise ValueError(
                f"tokens={self.tokens}, steps={self.steps}: give exactly one, the other follows; "
                "an override train.tokens=none or train.steps=none takes one away"
            )
        if self.batch_tokens % self.micro_batch_tokens:
            below = max(1, self.batch_tokens // self.micro_batch_tokens) * self.micro_batch_tokens
            raise ValueError(
                f"batch_tokens={self.batch_tokens} must be a multiple of "
                f"micro_batch_tokens={self.micro_batch_tokens}; batch_tokens={below} would do"
            )
        if self.seq_len > self.micro_batch_tokens:
            raise ValueError(
                f"seq_len={self.seq_len} exceeds micro_batch_tokens={self.micro_batch_tokens}: "
                "a sequence lies within one micro-batch; lower seq_len or raise the other"
            )
        return self


class FromModelConfig(RunConfig):
    """A run that goes on from a model directory."""

    init_from: Path
    """The directory of the model that is taught."""

    @model_validator(mode="after")
    def _check_apart(self) -> Self:
        if self.init_from.resolve() == self.out_dir.resolve():
            raise ValueError(
                f"init_from={self.init_from} is out_dir: the finished model would replace the one "
                "that the run begins with; choose another out_dir"
            )
        return self
