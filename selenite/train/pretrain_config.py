"""The config of a pre-training run, and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, model_validator

from selenite.config import Config
from selenite.data.mixture import CorpusOrMixture, MixtureConfig
from selenite.data.prepare import DataConfig
from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.config import preset as model_preset
from selenite.model.lora import LoRAConfig
from selenite.optim.build import OptimConfig
from selenite.optim.schedule import Schedule, ScheduleConfig
from selenite.optim.schedule import preset as schedule_preset
from selenite.train.run_config import RunConfig, check_adapters, check_switch


class TrainConfig(RunConfig):
    """A run, what it begins with, and what is shown of it. Documents longer than ``seq_len`` are
    cut."""

    prompts: tuple[str, ...] = ("def ", "import ", "The ")
    """Beginnings that the model continues at each ``sample_every``."""
    init_from: Path | None = None
    """A model directory whose weights the run begins with; none: random ones. Its tokenizer must be
    the data's, its dimensions the model's (``train/initial_model.py``)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.init_from is not None and self.init_from.resolve() == self.out_dir.resolve():
            raise ValueError(
                f"init_from={self.init_from} is out_dir: the finished model would replace the one "
                "that the run begins with; choose another out_dir"
            )
        return self


def expanding(preset: Callable[[str], Config]) -> BeforeValidator:
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

    model: Annotated[ModelConfig, expanding(model_preset)]
    """A preset's name, a table with ``preset`` and changes to it, or all dimensions."""
    train: TrainConfig
    data: CorpusOrMixture = DataConfig()
    optim: OptimConfig = OptimConfig()
    lora: LoRAConfig | None = None
    """Train adapters beside the frozen weights of ``train.init_from``; none: train all weights."""
    schedule: Annotated[ScheduleConfig, expanding(schedule_preset)] = ScheduleConfig()
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
        check_switch(self.train, self.model)
        if self.lora is not None:
            self._check_lora(self.lora)
        return self

    def _check_lora(self, lora: LoRAConfig) -> None:
        if self.train.init_from is None:
            raise ValueError(
                "lora: adapters belong to a trained model; set train.init_from to its directory, "
                "or leave lora out"
            )
        check_adapters(lora, self.model, self.optim)
