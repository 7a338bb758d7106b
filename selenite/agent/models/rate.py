"""How much an endpoint is asked: requests and tokens in any minute, and requests at once.

One limiter may serve several models of one account. A request counts from the time that it is
sent. Its tokens are guessed then, and put right when the endpoint has counted them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from selenite.clock import Clock
from selenite.errors import ConfigError

_MINUTE = 60.0  # seconds


@dataclass(frozen=True)
class Limits:
    """What an endpoint allows; None: any number. Raises ``ConfigError`` for less than 1."""

    at_once: int = 8
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # prompt and reply

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: must be 1 or more; None is for no limit")


@dataclass
class Sent:
    """A request of the last minute."""

    time: float  # the clock's seconds
    tokens: int


class RateLimiter:
    """Lets threads through, one after the other, as the limits allow."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._slots = threading.BoundedSemaphore(limits.at_once)
        self._turn = threading.Lock()  # held by the one thread that waits for its time
        self._guard = threading.Lock()  # of what follows
        self._sent: deque[Sent] = deque()
        self._held_until = clock.now()
        self._settled = threading.Event()

    @contextmanager
    def request(self, expected_tokens: int) -> Iterator[Sent]:
        """Waits until a request may be sent, and holds a slot until it is answered."""
        with self._slots:
            yield self._wait(expected_tokens)

    def settle(self, sent: Sent, tokens: int) -> None:
        """Says how many tokens a request took."""
        with self._guard:
            sent.tokens = tokens
        self._settled.set()

    def hold(self, seconds: float) -> None:
        """Lets nobody through for so long: the endpoint asked for it."""
        with self._guard:
            self._held_until = max(self._held_until, self._clock.now() + seconds)

    def _wait(self, expected_tokens: int) -> Sent:
        with self._turn:
            while True:
                self._settled.clear()
                with self._guard:
                    now = self._clock.now()
                    delay = self._delay(now, expected_tokens)
                    if delay <= 0:
                        sent = Sent(now, expected_tokens)
                        self._sent.append(sent)
                        return sent
                self._clock.wait(self._settled, delay)

    def _delay(self, now: float, tokens: int) -> float:
        """Seconds until the limits allow a request of so many tokens.

        One of more than the limit goes when it is alone in its minute.
        """
        while self._sent and self._sent[0].time + _MINUTE <= now:
            self._sent.popleft()
        until = self._held_until
        most = self._limits.requests_per_minute
        if most is not None and len(self._sent) >= most:
            until = max(until, self._sent[-most].time + _MINUTE)
        limit = self._limits.tokens_per_minute
        if limit is not None:
            spent = sum(sent.tokens for sent in self._sent)
            for sent in self._sent:  # oldest first
                if spent + tokens <= limit:
                    break
                until = max(until, sent.time + _MINUTE)
                spent -= sent.tokens
        return until - now
