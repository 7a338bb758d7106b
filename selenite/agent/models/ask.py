"""One request until its reply: out of the cache, or as many tries as it takes and is allowed."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from selenite.agent.models.cache import Cache, key_of
from selenite.agent.models.completion import Completion, read_completion
from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.failure import Fault, ModelError, Reason
from selenite.agent.models.ledger import Entry
from selenite.agent.models.rate import RateLimiter
from selenite.agent.models.request import Request
from selenite.agent.models.retry import RetryPolicy
from selenite.agent.models.transport import Transport
from selenite.clock import Clock
from selenite.types import FinishReason


@dataclasses.dataclass(frozen=True)
class Asker:
    """What stands between a request and an endpoint."""

    name: str  # of the model, for its failures
    endpoint: Endpoint
    transport: Transport
    cache: Cache | None  # None: every request is sent
    limiter: RateLimiter
    retry: RetryPolicy
    clock: Clock

    def ask(self, request: Request, entry: Entry) -> Completion:
        """Raises ``ModelError`` when the last try fails too."""
        body = request.body(self.endpoint)
        key = key_of(body)
        expected_tokens = request.expected_tokens(body)
        if self.cache is None:
            completion = _read(self._fetch(body, key, expected_tokens, entry))
        else:
            completion = self._cached(self.cache, body, key, expected_tokens, entry)
        entry.count("truncated", completion.finish_reason is FinishReason.LENGTH)
        return completion

    def _cached(
        self, cache: Cache, body: dict[str, Any], key: str, expected_tokens: int, entry: Entry
    ) -> Completion:
        with cache.alone(key):
            found = cache.read(key)
            entry.count("corrupted", found.is_corrupted)
            if found.answer is not None:
                entry.count("cached")
                return dataclasses.replace(_read(found.answer), is_cached=True)
            answer = self._fetch(body, key, expected_tokens, entry)
            return _read(cache.write(key, answer))

    def _fetch(
        self, body: dict[str, Any], key: str, expected_tokens: int, entry: Entry
    ) -> dict[str, Any]:
        """The answer of the endpoint, which has a completion in it."""
        retry = 0
        while True:
            with self.limiter.request(expected_tokens) as sent:
                entry.count("requests")
                answer = self.transport.send(body)
                read = read_completion(answer) if isinstance(answer, dict) else answer
            if read.usage is not None:
                self.limiter.settle(sent, read.usage.prompt + read.usage.completion)
                entry.pay(read.usage)
            if isinstance(read, Completion):
                assert isinstance(answer, dict)
                entry.count("unmetered", read.usage is None)
                return answer
            entry.fault(read)
            pause = self.retry.pause(read, retry, key)
            if pause is None:
                raise ModelError(self.name, _advised(read, body))
            if read.retry_after is not None:
                self.limiter.hold(pause)
            entry.count("retries")
            retry += 1
            self.clock.wait(threading.Event(), pause)


def _advised(fault: Fault, body: dict[str, Any]) -> Fault:
    """With the remedy for endpoints that cannot force JSON."""
    if fault.reason is not Reason.REFUSED or "response_format" not in body:
        return fault
    advice = "if the endpoint takes no such response_format, set json_mode of Endpoint to prompt"
    return dataclasses.replace(fault, detail=f"{fault.detail}; {advice}")


def _read(answer: dict[str, Any]) -> Completion:
    completion = read_completion(answer)
    assert isinstance(completion, Completion), completion
    return completion
