"""Clocks: the machine's, and the one that tests and simulators move by hand."""

from __future__ import annotations

import asyncio
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


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
def test_sleep_lets_others_run(clock: Clock) -> None:
    async def sleep_beside_another(seconds: float) -> list[str]:
        order: list[str] = []

        async def other() -> None:
            order.append("other")

        task = asyncio.create_task(other())
        await clock.sleep(seconds)
        order.append("slept")
        await task
        return order

    start = clock.now()
    assert asyncio.run(sleep_beside_another(0.01)) == ["other", "slept"]
    assert clock.now() - start >= 0.01 - 1e-9
    assert asyncio.run(sleep_beside_another(-1.0)) == ["other", "slept"]  # no step back


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
