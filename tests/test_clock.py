"""Clocks: the machine's, and the one that tests and simulators move by hand."""

from __future__ import annotations

import threading

import pytest

from selenite.clock import Clock, ManualClock, SystemClock


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
def test_contract(clock: Clock) -> None:
    """Time never goes backwards; ``wait`` says whether the event was set."""
    event = threading.Event()
    start = clock.now()
    assert clock.wait(event, 0.01) is False
    assert clock.now() - start >= 0.01 - 1e-9  # rounding of a difference of floats
    event.set()
    before = clock.now()
    assert clock.wait(event, 60.0) is True
    assert before <= clock.now() < before + 30  # did not wait for the timeout


def test_system_clock_is_woken_by_the_event() -> None:
    clock, event = SystemClock(), threading.Event()
    thread = threading.Thread(target=event.set)
    thread.start()
    assert clock.wait(event, 60.0) is True
    thread.join()


def test_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(5.0)
    assert clock.now() == clock.now() == 5.0
    clock.advance(2.5)
    assert clock.now() == 7.5
    clock.wait(threading.Event(), 0.5)
    assert clock.now() == 8.0
    with pytest.raises(ValueError, match=r"seconds=-1: a clock never goes backwards"):
        clock.advance(-1)
    assert clock.now() == 8.0
