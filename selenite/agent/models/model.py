"""A language model to ask: for a reply, for tool calls, or for a JSON object of a schema.

    model = Model(Endpoint("http://127.0.0.1:8000", "nano"), "judge", ledger=Ledger(path))
    model.json([Message("user", "Is it good?")], schema, seed=7)

Whatever an endpoint does, a call ends with a usable reply or a ``ModelError`` with its reason,
and with a line in the ledger. Calls may come from any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from selenite.agent.models.ask import Asker
from selenite.agent.models.cache import Cache
from selenite.agent.models.calls import OfferedTools
from selenite.agent.models.completion import Completion
from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.failure import REPAIRED, ModelError
from selenite.agent.models.ledger import Entry, Ledger
from selenite.agent.models.names import PlainNames
from selenite.agent.models.rate import Limits, RateLimiter
from selenite.agent.models.request import Request
from selenite.agent.models.retry import RetryPolicy
from selenite.agent.models.structured import ReplySchema, Wrong
from selenite.agent.models.transport import Transport
from selenite.clock import Clock, SystemClock
from selenite.errors import ConfigError
from selenite.types import Message, ToolSpec

R = TypeVar("R")


class Model:
    """One model of an endpoint, under the name of what it is asked for.

    Models may share a cache, a ledger and a limiter. Without a cache every request is sent,
    without a ledger only totals are kept, without a limiter eight requests go at once. Raises
    ``ConfigError``.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        *,
        cache: Cache | None = None,
        ledger: Ledger | None = None,
        limiter: RateLimiter | None = None,
        retry: RetryPolicy | None = None,
        repairs: int = 2,
        clock: Clock | None = None,
    ) -> None:
        if repairs < 0:
            raise ConfigError(f"repairs={repairs}: must be 0 (a wrong reply fails) or more")
        clock = clock or SystemClock()
        self.endpoint = endpoint
        self.name = name
        self.ledger = ledger or Ledger()
        self._repairs = repairs
        self._clock = clock
        self._transport = Transport(endpoint, clock)
        self._asker = Asker(
            name=name,
            endpoint=endpoint,
            transport=self._transport,
            cache=cache,
            limiter=limiter or RateLimiter(Limits(), clock),
            retry=retry or RetryPolicy(),
            clock=clock,
        )

    def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        tool_choice: str | None = None,
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        repair_calls: bool = True,
    ) -> Completion:
        """The next turn of a conversation. ``None`` leaves a value to the endpoint.

        ``tool_choice`` is none, auto, required, or a tool's name. ``schema`` asks for JSON and
        checks nothing: ``json`` does. Wrong tool calls are told to the model, which tries again;
        with ``repair_calls=False`` they are handed out, and ``call_checks`` says what is wrong.

        Raises ``ModelError``; ``ConfigError`` and ``ConversationError`` for what is wrong with
        the arguments; ``StorageError`` where cache or ledger cannot be written.
        """
        request = Request(
            tuple(messages), tuple(tools), tool_choice, schema, temperature, max_tokens, seed
        )
        names = PlainNames(request) if self.endpoint.has_plain_names else None
        request = request if names is None else names.hide(request)
        offered = OfferedTools(request)
        with self._call() as entry:
            judge = offered.judge if repair_calls else offered.checked
            completion = self._right(request, judge, entry)
            wrong = sum(not check.valid for check in completion.call_checks)
            entry.count("wrong_calls", wrong)
            return completion if names is None else names.show(completion)

    def json(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """A JSON object that the schema allows, whether the endpoint can force one or not.

        Raises as ``complete`` does.
        """
        reply_schema = ReplySchema(schema)
        request = Request(
            tuple(messages),
            schema=schema,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
        )
        with self._call() as entry:
            return self._right(request, reply_schema.read, entry)

    def close(self) -> None:
        """Closes the connections. The ledger stays open: others may share it."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self) -> AbstractContextManager[Entry]:
        endpoint = self.endpoint
        return self.ledger.call(self.name, endpoint.model, endpoint.price, self._clock)

    def _right(self, request: Request, judge: Callable[[Completion], R | Wrong], entry: Entry) -> R:
        """What ``judge`` makes of the first reply that is right."""
        repairs = 0
        while True:
            completion = self._asker.ask(request, entry)
            judged = judge(completion)
            if not isinstance(judged, Wrong):
                return judged
            entry.fault(judged.fault)
            if judged.fault.reason not in REPAIRED or repairs == self._repairs:
                raise ModelError(self.name, judged.fault, completion)
            entry.count("repairs")
            repairs += 1
            request = request.continued(judged.turns)
