"""Limits: in no minute more requests or tokens than allowed, and never more at once."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from selenite.agent.models.rate import Limits, RateLimiter
from selenite.clock import ManualClock, SystemClock
from selenite.errors import ConfigError
from tests.agent.models.stub import ASKED, answer, model_at, scripted
from tests.fixtures.scripted_server import Answer, json_answer, scripted_server


def most_in_a_minute(sent: list[tuple[float, int]]) -> tuple[int, int]:
    """Requests and tokens of the fullest minute."""
    windows = [[tokens for time, tokens in sent if start <= time < start + 60] for start, _ in sent]
    return max(map(len, windows)), max(map(sum, windows))


@pytest.mark.parametrize("seed", range(8))
def test_no_minute_has_more_than_allowed(seed: int) -> None:
    draws = random.Random(seed)
    clock = ManualClock(draws.uniform(0, 1e6))
    limits = Limits(
        requests_per_minute=draws.randrange(1, 12), tokens_per_minute=draws.randrange(50, 400)
    )
    limiter = RateLimiter(limits, clock)
    sent: list[tuple[float, int]] = []
    for _ in range(200):
        expected = draws.randrange(1, 120)
        with limiter.request(expected) as request:
            taken = draws.choice([expected, draws.randrange(expected + 1)])
            taken = min(taken, limits.tokens_per_minute or 0)
            sent.append((clock.now(), taken))
            clock.advance(draws.choice([0.0, 0.1, 3.0]))
        limiter.settle(request, taken)
    requests, tokens = most_in_a_minute(sent)
    assert requests <= (limits.requests_per_minute or 0)
    assert tokens <= (limits.tokens_per_minute or 0)


def test_requests_go_as_soon_as_they_may() -> None:
    clock = ManualClock()
    limiter = RateLimiter(Limits(requests_per_minute=3), clock)
    times = []
    for _ in range(8):
        with limiter.request(10):
            times.append(clock.now())
        clock.advance(1)
    assert times == [0, 1, 2, 60, 61, 62, 120, 121]
    clock = ManualClock()
    limiter = RateLimiter(Limits(tokens_per_minute=100), clock)
    times = []
    for expected, taken in ((60, 10), (80, 80), (40, 40), (500, 100), (10, 10)):
        with limiter.request(expected) as request:
            times.append(clock.now())
        limiter.settle(request, taken)
        clock.advance(1)
    # 10 of the 60 are left; 40 do not fit beside 80; 500 goes alone in its minute.
    assert times == [0, 1, 61, 121, 181]
    clock = ManualClock()
    limiter = RateLimiter(Limits(tokens_per_minute=100), clock)
    times = []
    for expected in (50, 50, 51, 49, 1):
        with limiter.request(expected):
            times.append(clock.now())
        clock.advance(30)
    assert times == [0, 30, 90, 120, 150]


def test_threads_share_the_minute() -> None:
    clock = ManualClock()
    limiter = RateLimiter(Limits(at_once=6, requests_per_minute=10), clock)
    times, lock = [], threading.Lock()

    def ask(_: int) -> None:
        with limiter.request(1) as request, lock:
            times.append(request.time)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(60)))
    assert sorted(times) == [60.0 * (number // 10) for number in range(60)]


def test_tokens_that_were_not_needed_wake_who_waits() -> None:
    """On the machine's own clock: without the wake-up, this would take a minute."""
    limiter = RateLimiter(Limits(tokens_per_minute=100), SystemClock())
    with limiter.request(100) as first, ThreadPoolExecutor(1) as pool:

        def second() -> None:
            with limiter.request(90):
                pass

        waiting = pool.submit(second)
        time.sleep(0.05)
        assert not waiting.done()
        limiter.settle(first, 10)
        waiting.result(timeout=5)


def test_an_endpoint_that_asks_to_wait_holds_everyone() -> None:
    clock = ManualClock()
    limiter = RateLimiter(Limits(), clock)
    full = json_answer({}, 429, Retry_After="7")
    with (
        scripted(full, answer("x")) as server,
        model_at(server.url, clock, limiter=limiter) as model,
    ):
        model.complete(ASKED)
    assert clock.now() == 7
    limiter.hold(5)
    limiter.hold(2)
    with limiter.request(1):
        assert clock.now() == 12


def test_others_wait_too_while_one_pauses() -> None:
    times = []

    class Meanwhile(ManualClock):
        """During the first wait, somebody else asks."""

        def wait(self, event: threading.Event, timeout: float) -> bool:
            if not times:
                times.append(self.now())
                with limiter.request(1) as other:
                    times.append(other.time)
            return super().wait(event, timeout)

    clock = Meanwhile()
    limiter = RateLimiter(Limits(), clock)
    full = json_answer({}, 429, Retry_After="7")
    with (
        scripted(full, answer("x")) as server,
        model_at(server.url, clock, limiter=limiter) as model,
    ):
        model.complete(ASKED)
    assert times == [0, 7]


def test_tokens_count_as_the_endpoint_says() -> None:
    """Each call may take 900 tokens and takes 120."""
    clock = ManualClock()
    limiter = RateLimiter(Limits(tokens_per_minute=1200), clock)
    with scripted(answer("x")) as server, model_at(server.url, clock, limiter=limiter) as model:
        for _ in range(3):
            model.complete(ASKED, max_tokens=900)
        assert clock.now() == 0
        model.complete(ASKED, max_tokens=900)
    assert clock.now() == 60


def test_no_more_at_once_than_allowed() -> None:
    """Two models of one account share a limiter."""
    lock, running, peak = threading.Lock(), 0, 0

    def script(path: str, body: Any) -> Answer:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return answer("x")

    limiter = RateLimiter(Limits(at_once=3), ManualClock())
    with (
        scripted_server(script) as server,
        model_at(server.url, limiter=limiter) as first,
        model_at(server.url, limiter=limiter) as second,
        ThreadPoolExecutor(8) as pool,
    ):
        asked = [pool.submit(model.complete, ASKED) for model in [first, second] * 8]
        assert [each.result().text for each in asked] == ["x"] * 16
    assert 2 <= peak <= 3


def test_tries_count_as_requests() -> None:
    clock = ManualClock()
    limiter = RateLimiter(Limits(requests_per_minute=2), clock)
    broken = json_answer({}, 500)
    with (
        scripted(broken, broken, answer("x")) as server,
        model_at(server.url, clock, limiter=limiter) as model,
    ):
        model.complete(ASKED)
    assert clock.now() == 60


@pytest.mark.parametrize("name", ["at_once", "requests_per_minute", "tokens_per_minute"])
def test_limits_of_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0: must be 1 or more"):
        Limits(**{name: 0})
