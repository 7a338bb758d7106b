"""Schedules at their breakpoints, where the papers give the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selenite.errors import ConfigError
from selenite.optim.schedule import K2_SCHEDULE, MOONLIGHT_SCHEDULE, Schedule, ScheduleConfig


def close(value: float) -> object:
    return pytest.approx(value, rel=0, abs=1e-12)


def test_kimi_k2():
    """500 steps of warm-up, 2e-4 for 10T of 15.5T tokens, cosine to 2e-5."""
    total = 15_500
    schedule = Schedule(K2_SCHEDULE, total)
    assert schedule.factor(0) == close(1 / 500)
    assert schedule.factor(249) == close(0.5)
    assert schedule.factor(499) == close(1.0)
    assert schedule.factor(500) == close(1.0)
    assert schedule.factor(10_000) == close(1.0)
    assert schedule.factor(12_750) == close(0.55)  # half of a cosine from 1 to 0.1
    assert schedule.factor(15_500) == close(0.1)
    quarter = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))
    assert schedule.factor(10_000 + 5_500 / 4) == close(quarter)


def test_moonlight():
    """2k steps to 4.2e-4, cosine to 4.2e-5 at 5.2T of 5.7T, 100 steps to 1e-4, linear to 0."""
    total = 570_000
    schedule = Schedule(MOONLIGHT_SCHEDULE, total)
    peak = 4.2e-4
    assert schedule.factor(1_999) == close(1.0)
    assert schedule.factor(2_000) == close(1.0)
    assert schedule.factor((2_000 + 520_000) / 2) == close(0.55)
    assert peak * schedule.factor(520_000) == close(4.2e-5)
    assert peak * schedule.factor(520_050) == close((4.2e-5 + 1e-4) / 2)
    assert peak * schedule.factor(520_100) == close(1e-4)
    assert peak * schedule.factor((520_100 + 570_000) / 2) == close(0.5e-4)
    assert schedule.factor(570_000) == close(0.0)


def test_cosine_constant_and_linear_decay():
    cosine = Schedule(ScheduleConfig(kind="cosine", warmup_steps=10, final_factor=0.0), 110)
    assert [cosine.factor(s) for s in (4, 9, 10, 60, 110)] == [
        close(x) for x in (0.5, 1, 1, 0.5, 0)
    ]
    constant = Schedule(ScheduleConfig(kind="constant", warmup_fraction=0.1), 100)
    assert [constant.factor(s) for s in (0, 9, 99)] == [close(x) for x in (0.1, 1, 1)]
    linear = Schedule(
        ScheduleConfig(decay_shape="linear", decay_start=0.8, warmup_steps=0, final_factor=0.0), 100
    )
    assert [linear.factor(s) for s in (0, 80, 90, 99)] == [close(x) for x in (1, 1, 0.5, 0.05)]


@given(
    kind=st.sampled_from(["constant", "cosine", "wsd", "moonlight"]),
    total=st.integers(1, 5_000),
    warmup=st.floats(0, 0.5),
    final=st.floats(0, 1),
)
def test_factors_are_in_range_and_first_update_is_not_lost(kind, total, warmup, final):
    config = ScheduleConfig(kind=kind, warmup_fraction=warmup, final_factor=final)
    if kind == "moonlight":
        total += 1140  # fewer are refused
    schedule = Schedule(config, total)
    factors = [schedule.factor(step) for step in range(0, total, max(1, total // 50))]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0


def test_warmup_that_outlasts_the_plateau_is_refused():
    with pytest.raises(ValidationError, match="warm-up must end before the decay begins"):
        ScheduleConfig(warmup_fraction=0.7)


def test_steps_that_do_not_fit_the_stages_are_refused():
    with pytest.raises(ConfigError, match="at least 1141"):
        Schedule(ScheduleConfig(kind="moonlight"), 1140)
    shortest = Schedule(ScheduleConfig(kind="moonlight"), 1141)
    assert shortest.factor(1141) == close(0), "the least number of steps must fall"
    with pytest.raises(ConfigError, match="beyond the decay, which begins at step 60 of 100"):
        Schedule(ScheduleConfig(warmup_steps=61, decay_start=0.6), 100)
    with pytest.raises(ConfigError, match="leaves nothing of the 100 steps"):
        Schedule(ScheduleConfig(kind="constant", warmup_steps=100), 100)
