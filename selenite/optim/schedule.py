"""Learning-rate schedules: pure functions from a step to the factor on every ``base_lr``.

``step`` counts the updates already done, so the first update asks for ``factor(0)``. Nothing is
remembered between calls; a run resumes in the middle of any stage by asking for its step.
Recipes: Kimi K2, arXiv 2507.20534, section 2.5; Moonlight, arXiv 2502.16982, section 3.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from selenite.config import Config
from selenite.errors import ConfigError

Shape = Literal["cosine", "linear"]


class ScheduleConfig(Config):
    """Which schedule. The defaults are warm-up, plateau and cosine decay to a tenth (WSD)."""

    kind: Literal["constant", "cosine", "wsd", "moonlight"] = "wsd"
    """``constant``; ``cosine`` from the end of warm-up; ``wsd`` (warm-up, stable, decay); or
    ``moonlight``'s cosine followed by a short rise and a linear fall to zero."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Updates of linear warm-up, where the number is known rather than the fraction."""
    warmup_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Warm-up as a fraction of all steps, unless ``warmup_steps`` is set."""
    decay_start: float = Field(default=10 / 15.5, ge=0, lt=1)
    """wsd: the fraction of all steps at which decay begins. K2: 10T of 15.5T tokens."""
    decay_shape: Shape = "cosine"
    """wsd: the shape of the decay."""
    final_factor: float = Field(default=0.1, ge=0, le=1)
    """What the decay ends at, as a factor of the peak (moonlight: the end of its cosine)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (
            self.kind == "wsd"
            and self.warmup_steps is None
            and self.warmup_fraction > self.decay_start
        ):
            raise ValueError(
                f"warmup_fraction={self.warmup_fraction} exceeds decay_start={self.decay_start}: "
                "warm-up must end before the decay begins; lower one or raise the other"
            )
        return self


K2_SCHEDULE = ScheduleConfig(kind="wsd", warmup_steps=500)
MOONLIGHT_SCHEDULE = ScheduleConfig(kind="moonlight", warmup_steps=2000)

PRESETS = {"k2": K2_SCHEDULE, "moonlight": MOONLIGHT_SCHEDULE}

# Moonlight's third stage: from 5.2T of 5.7T tokens, 100 steps up from 4.2e-5 to 1e-4 (of a peak of
# 4.2e-4), then linearly to zero.
_MOONLIGHT_LAST_STAGE = 5.2 / 5.7
_MOONLIGHT_RISE_STEPS = 100
_MOONLIGHT_RISE_TO = 1e-4 / 4.2e-4


def preset(name: str) -> ScheduleConfig:
    """The schedule of a paper; raises ``ConfigError`` for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"schedule {name!r} is unknown; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def linear_warmup(step: float, warmup_steps: int) -> float:
    """1/W at the first update, 1 from update W on: the first update is not wasted on a zero."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def decay(step: float, start: float, end: float, final: float, shape: Shape) -> float:
    """1 up to ``start``, ``final`` from ``end`` on, the shape's curve between."""
    if step <= start:
        return 1.0
    if step >= end:
        return final
    progress = (step - start) / (end - start)
    left = 1 - progress if shape == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return final + (1 - final) * left


class Schedule:
    """A ``ScheduleConfig`` over a known number of steps; ``ConfigError`` if they do not fit."""

    def __init__(self, config: ScheduleConfig, total_steps: int) -> None:
        self.config = config
        self.total_steps = total_steps
        self.warmup_steps = (
            round(config.warmup_fraction * total_steps)
            if config.warmup_steps is None
            else config.warmup_steps
        )
        self._check()

    def factor(self, step: float) -> float:
        """The factor on every ``base_lr`` for the update after ``step`` updates."""
        warmup = linear_warmup(step, self.warmup_steps)
        config, total = self.config, self.total_steps
        if config.kind == "constant":
            return warmup
        if config.kind == "cosine":
            return warmup * decay(step, self.warmup_steps, total, config.final_factor, "cosine")
        if config.kind == "wsd":
            start = config.decay_start * total
            return warmup * decay(step, start, total, config.final_factor, config.decay_shape)
        return warmup * self._moonlight(step)

    def _check(self) -> None:
        config, total = self.config, self.total_steps
        if config.kind == "moonlight":
            least = round(_MOONLIGHT_RISE_STEPS / (1 - _MOONLIGHT_LAST_STAGE)) + 1
            if total < least:
                raise ConfigError(
                    f"{total} steps are too few for kind=moonlight: its last stage would not fall "
                    f"after {_MOONLIGHT_RISE_STEPS} steps of rising; train at least {least} steps, "
                    "or choose kind=wsd"
                )
        if config.warmup_steps is None:
            return
        if config.warmup_steps >= total:
            raise ConfigError(
                f"warmup_steps={config.warmup_steps} leaves nothing of the {total} steps; "
                "lower it, or set warmup_fraction instead"
            )
        if config.kind == "wsd" and config.warmup_steps > config.decay_start * total:
            raise ConfigError(
                f"warmup_steps={config.warmup_steps} is beyond the decay, which begins at step "
                f"{config.decay_start * total:.0f} of {total}; lower it, or raise decay_start"
            )

    def _moonlight(self, step: float) -> float:
        floor = self.config.final_factor
        last_stage = _MOONLIGHT_LAST_STAGE * self.total_steps
        if step <= last_stage:
            return decay(step, self.warmup_steps, last_stage, floor, "cosine")
        rise = min(1.0, (step - last_stage) / _MOONLIGHT_RISE_STEPS)
        top = last_stage + _MOONLIGHT_RISE_STEPS
        fall = decay(step, top, self.total_steps, 0.0, "linear")
        return (floor + (_MOONLIGHT_RISE_TO - floor) * rise) * fall
