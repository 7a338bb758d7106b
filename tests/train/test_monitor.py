"""The spike monitor against curves whose spikes are known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from selenite.train.monitor import SpikeMonitor


def _curve(steps: int = 400, noise: float = 0.03) -> np.ndarray:
    falling = 2.0 + 6.0 * np.exp(-np.arange(steps) / 60)
    return falling + noise * np.random.default_rng(0).standard_normal(steps)


def _count(losses: np.ndarray) -> int:
    monitor = SpikeMonitor()
    for loss in losses:
        monitor.observe(float(loss))
    return monitor.count


def test_a_falling_noisy_curve_has_none() -> None:
    assert _count(_curve()) == 0


def test_each_excursion_counts_once_however_long() -> None:
    losses = _curve()
    losses[200:206] += 1.5
    losses[300] += 1.0
    assert _count(losses) == 2


def test_a_bump_within_the_noise_is_none() -> None:
    losses = _curve(noise=0.2)
    losses[300] += 0.3  # above the least size, within 6 deviations of 0.2
    assert _count(losses) == 0


def test_the_median_follows_a_lasting_change_of_level() -> None:
    losses = np.concatenate([np.full(100, 2.0), np.full(100, 5.0), np.full(1, 7.0)])
    assert _count(losses) == 2


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.integers(0, 59))
def test_restored_monitor_goes_on_as_if_never_stopped(losses: list[float], cut: int) -> None:
    whole = SpikeMonitor(window=8, min_history=4)
    expected = [whole.observe(loss) for loss in losses]
    first = SpikeMonitor(window=8, min_history=4)
    found = [first.observe(loss) for loss in losses[:cut]]
    second = SpikeMonitor(window=8, min_history=4)
    second.load_state_dict(first.state_dict())
    found += [second.observe(loss) for loss in losses[cut:]]
    assert found == expected
    assert second.state_dict() == whole.state_dict()
