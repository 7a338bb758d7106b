"""The config of a pre-training run, and the numbers that follow from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from selenite.config import Config
from selenite.data.mixture import CorpusOrMixture, MixtureConfig
from selenite.data.prepare import DataConfig
from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.config import preset as model_preset
from selenite.model.lora import LoRAConfig, target_paths
from selenite.optim.build import OptimConfig
from selenite.optim.schedule import Schedule, ScheduleConfig
from selenite.optim.schedule import preset as schedule_preset
from selenite.runtime import DTypeName
from selenite.train.loop import LoopConfig


class TrainConfig(LoopConfig):
    """Length, batch and habits of the run. Exactly one of ``tokens`` and ``steps`` is given."""

    tokens: int | None = Field(default=None, gt=0)
    """Training tokens; the number of steps follows."""
    steps: int | None = Field(default=None, gt=0)
    seq_len: int = Field(default=1024, gt=0)
    """The most tokens that attend to each other; longer documents are cut."""
    batch_tokens: int = Field(default=32_768, gt=0)
    """Tokens of one optimizer step."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Tokens of one forward and backward pass: memory grows with it. A document that its edge cuts
    is trained on in two pieces; besides that, the update does not depend on it."""
    eval_tokens: int = Field(default=131_072, gt=0)
    """Held-out tokens of one evaluation, the same every time."""
    prompts: tuple[str, ...] = ("def ", "import ", "The ")
    """Beginnings that the model continues at each ``sample_every``."""
    sample_tokens: int = Field(default=48, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the initial weights and of the data's order."""
    init_from: Path | None = None
    """A model directory whose weights the run begins with; none: random ones. Its tokenizer must be
    the data's, its dimensions the model's (``train/initial_model.py``)."""
    dtype: DTypeName = "auto"
    """Of activations; weights and optimizer state are float32."""
    device: str = "auto"
    batch_invariant: bool = False
    """Compute in float32 so that a row's bits do not depend on the rows beside it: the log-probs
    of training then equal those of cached decoding exactly. Slower."""
    nextn_loss_weight: float = Field(default=0.3, gt=0)
    """Weight of the extra prediction layers' loss, if ``model.num_nextn_predict_layers`` gives the
    model any. DeepSeek-V3 has 0.3, and 0.1 for the last third of its tokens."""
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
    def micro_batches(self) -> int:
        """Micro-batches of one optimizer step."""
        return self.batch_tokens // self.micro_batch_tokens

    @model_validator(mode="after")
    def _check(self) -> Self:
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
        if self.init_from is not None and self.init_from.resolve() == self.out_dir.resolve():
            raise ValueError(
                f"init_from={self.init_from} is out_dir: the finished model would replace the one "
                "that the run begins with; choose another out_dir"
            )
        return self


def _expanding(preset: Callable[[str], Config]) -> BeforeValidator:
    """``"nano"``, or ``{preset = "nano", num_layers = 4}``, become the settings they stand for."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return preset(value)
        if not isinstance(value, dict) or "preset" not in value:
            return value
        changes = dict(value)
        name = changes.pop("preset")
        settings: dict[str, Any] = preset(str(name)).model_dump(exclude_unset=True)
        for key, change in changes.items():
            old = settings.get(key)
            if isinstance(old, dict) and isinstance(change, dict):
                change = {**old, **change}
            settings[key] = change
        return settings

    return BeforeValidator(expand)


class PretrainConfig(Config):
    """A pre-training run: what ``selenite pretrain`` reads."""

    model: Annotated[ModelConfig, _expanding(model_preset)]
    """A preset's name, a table with ``preset`` and changes to it, or all dimensions."""
    train: TrainConfig
    data: CorpusOrMixture = DataConfig()
    optim: OptimConfig = OptimConfig()
    lora: LoRAConfig | None = None
    """Train adapters beside the frozen weights of ``train.init_from``; none: train all weights."""
    schedule: Annotated[ScheduleConfig, _expanding(schedule_preset)] = ScheduleConfig()
    """A preset's name (``k2``, ``moonlight``), one with changes, or a table of its own."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train.seq_len > self.model.max_positions:
            raise ValueError(
                f"train.seq_len={self.train.seq_len} exceeds model.max_positions="
                f"{self.model.max_positions}; lower the first or raise the second"
            )
        first = self.data.parts[0].data if isinstance(self.data, MixtureConfig) else self.data
        wanted = first.tokenizer
        if wanted.path is None and wanted.vocab_size > self.model.vocab_size:
            raise ValueError(
                f"data.tokenizer.vocab_size={wanted.vocab_size} exceeds model.vocab_size="
                f"{self.model.vocab_size}: the last tokens have no row; make them equal"
            )
        try:
            Schedule(self.schedule, self.train.num_steps)
        except ConfigError as error:
            raise ValueError(f"schedule: {error}") from error
        if self.lora is not None:
            self._check_lora(self.lora)
        return self

    def _check_lora(self, lora: LoRAConfig) -> None:
        if self.train.init_from is None:
            raise ValueError(
                "lora: adapters belong to a trained model; set train.init_from to its directory, "
                "or leave lora out"
            )
        target_paths(self.model, lora.targets)
        moving = {}
        if self.optim.qk_clip_tau is not None:
            moving[f"optim.qk_clip_tau={self.optim.qk_clip_tau}"] = "optim.qk_clip_tau=none"
        if self.optim.router_bias_speed and self.model.moe is not None:
            speed = self.optim.router_bias_speed
            moving[f"optim.router_bias_speed={speed}"] = "optim.router_bias_speed=0"
        if moving:
            raise ValueError(
                f"lora: {' and '.join(moving)} would change what is frozen, so that the adapter "
                f"would not fit train.init_from; set {' and '.join(moving.values())}"
            )
