"""The roles of one process: a mixture of back ends for each, and the connections that they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from selenite.agent.models.cache import Cache
from selenite.agent.models.config import EndpointConfig
from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.failure import OF_ENDPOINT, ModelError, Reason
from selenite.agent.models.ledger import Ledger
from selenite.agent.models.mixture import Mixture
from selenite.agent.models.model import Model
from selenite.agent.models.rate import RateLimiter
from selenite.agent.models.retry import RetryPolicy
from selenite.agent.roles.config import JudgeConfig, PartConfig, RolesConfig
from selenite.agent.roles.role import Role
from selenite.agent.roles.source import Source
from selenite.agent.roles.tool_author import Described
from selenite.clock import Clock, SystemClock
from selenite.errors import EndpointError
from selenite.types import Message

BackEnd = Source | None
"""Of a role; None: the programmatic one."""


class Roles:
    """Who takes each role of an item, by the item's number. Threads may share it."""

    def __init__(
        self,
        mixtures: Mapping[Role, Mixture[BackEnd]],
        models: Iterable[Model],
        checks: Iterable[Model],
        ledger: Ledger,
    ) -> None:
        self.ledger = ledger
        self.described = Described()
        self._mixtures = mixtures
        self._checks = tuple(checks)
        self._models = (*models, *self._checks)

    def of(self, role: Role, number: int) -> BackEnd:
        """The back end that takes a role of item ``number``."""
        return self._mixtures[role].of(number)

    def check_endpoints(self) -> None:
        """Asks each endpoint something once, or its cache; raises ``EndpointError`` where there is
        no reply."""
        for checked in self._checks:
            try:
                checked.complete([Message("user", "Hello.")], max_tokens=16, seed=0)
            except ModelError as failure:
                if failure.reason in OF_ENDPOINT - {Reason.EMPTY}:
                    endpoint = checked.endpoint
                    raise EndpointError(
                        f"{endpoint.base_url}, {endpoint.model}: {failure.reason}: "
                        f"{failure.detail}; see to the endpoint, and run the same command again"
                    ) from failure

    def close(self) -> None:
        """Closes connections and the ledger."""
        for model in self._models:
            model.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_roles(
    config: RolesConfig, seed: int, processes: int = 1, clock: Clock | None = None
) -> Roles:
    """The roles that a config says, for one of some processes that do the same.

    ``seed`` is the corpus's: the same items have the same back ends in every process. Raises
    ``ConfigError`` for what is wrong with an endpoint, ``StorageError`` where cache or ledger
    cannot be made.
    """
    clock = clock or SystemClock()
    ledger = Ledger(config.ledger)
    endpoints = {
        name: _Opened(name, found, config, ledger, processes, clock)
        for name, found in config.endpoints.items()
    }
    models: dict[tuple[str, Role, int], Model] = {}

    def back_end(role: Role, part: PartConfig) -> BackEnd:
        if part.endpoint is None:
            return None
        place = part.endpoint, role, part.repairs
        if place not in models:
            models[place] = endpoints[part.endpoint].model(role, part.repairs)
        votes = part.votes if isinstance(part, JudgeConfig) else 1
        return Source(role, models[place], part.temperature, part.max_tokens, part.repairs, votes)

    mixtures = {
        role: Mixture(
            [(part.weight, back_end(role, part)) for part in config.parts(role)], seed, role.value
        )
        for role in Role
    }
    used = {name for name, _, _ in models}
    checks = [opened.check() for name, opened in endpoints.items() if name in used]
    return Roles(mixtures, models.values(), checks, ledger)


class _Opened:
    """What the models of an endpoint share: its limits and its folder of the cache."""

    def __init__(
        self,
        name: str,
        config: EndpointConfig,
        roles: RolesConfig,
        ledger: Ledger,
        processes: int,
        clock: Clock,
    ) -> None:
        self._endpoint: Endpoint = config.endpoint()
        self._cache = None if roles.cache_dir is None else Cache(roles.cache_dir / name)
        self._limiter = RateLimiter(config.limits(processes), clock)
        self._retry = config.retry()
        self._ledger = ledger
        self._clock = clock

    def model(self, role: Role, repairs: int) -> Model:
        """A model, under the role's name in the ledger."""
        return self._model(role.value, self._retry, repairs)

    def check(self) -> Model:
        """One that is not patient."""
        return self._model("check", RetryPolicy(retries=0), 0)

    def _model(self, name: str, retry: RetryPolicy, repairs: int) -> Model:
        return Model(
            self._endpoint,
            name,
            cache=self._cache,
            ledger=self._ledger,
            limiter=self._limiter,
            retry=retry,
            repairs=repairs,
            clock=self._clock,
        )
