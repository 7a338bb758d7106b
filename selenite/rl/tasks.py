"""Which task comes next: environments by weight, tasks by number or by how often they succeed.

What comes at a place depends on the place, and on what was told of tasks before, which is part of
the state: a run that goes on goes on exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.agent.randomness import stream
from selenite.errors import ConfigError
from selenite.rl.gym.environment import HELD_OUT, Environment

_SELDOM = 0.05
"""How likely a task comes again that succeeded always or never, against one that is right half of
the time (0.5): it may have changed sides."""


@dataclass(frozen=True)
class Assigned:
    """A task for a group."""

    environment: Environment
    number: int
    visit: int = 0  # how often the task came before


class TaskStream:
    """An endless sequence of tasks in which each environment has its share, as evenly as whole
    numbers allow.

    Args:
        environments: with names of their own.
        weights: their shares, relative to each other.
        pool: tasks of each environment, which come again once each has come: one that succeeds with
            probability ``p`` is drawn in proportion to ``1 - p`` (Kimi K1.5, section 2.3.4), if
            neither all nor none of its attempts did. 0: every task comes once.
        seed: of what is drawn from the pool.
    """

    def __init__(
        self,
        environments: Sequence[Environment],
        weights: Sequence[float],
        pool: int = 0,
        seed: int = 0,
    ) -> None:
        assert len(environments) == len(weights) > 0
        names = [environment.name for environment in environments]
        if len(set(names)) < len(names):
            raise ConfigError(f"environments: {', '.join(names)}: each needs a name of its own")
        self._environments = environments
        self._weights = [weight / sum(weights) for weight in weights]
        self._pool, self._seed = pool, seed
        self._given = [0] * len(environments)
        self._visits = [dict[int, int]() for _ in environments]
        self._rates = [dict[int, float]() for _ in environments]

    def take(self) -> Assigned:
        """The next one."""
        total = sum(self._given) + 1
        lack = [w * total - n for w, n in zip(self._weights, self._given, strict=True)]
        place = lack.index(max(lack))
        number = self._number(place)
        assert number < HELD_OUT
        self._given[place] += 1
        if not self._pool:
            return Assigned(self._environments[place], number)
        visit = self._visits[place].get(number, 0)
        self._visits[place][number] = visit + 1
        return Assigned(self._environments[place], number, visit)

    def tell(self, task: Assigned, rate: float) -> None:
        """``rate`` of a task's attempts have just succeeded, 0 to 1."""
        if self._pool:
            self._rates[self._environments.index(task.environment)][task.number] = rate

    def assigned(self, name: str, number: int, visit: int) -> Assigned:
        """A task by the name of its environment, and its number."""
        (environment,) = (known for known in self._environments if known.name == name)
        return Assigned(environment, number, visit)

    def _number(self, place: int) -> int:
        given = self._given[place]
        if not self._pool or given < self._pool:
            return given
        rates = self._rates[place]
        # A task of which nothing is known yet is in flight.
        weights = [_likely(rates[n]) if n in rates else 0.0 for n in range(self._pool)]
        if not any(weights):
            return given % self._pool
        name = self._environments[place].name
        return stream(self._seed, "pool", name, given).choices(range(self._pool), weights)[0]

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "given": list(self._given),
            "visits": [sorted(visits.items()) for visits in self._visits],
            "rates": [sorted(rates.items()) for rates in self._rates],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken."""
        assert len(state["given"]) == len(self._given)
        self._given = list(state["given"])
        self._visits = [dict(visits) for visits in state["visits"]]
        self._rates = [dict(rates) for rates in state["rates"]]


def _likely(rate: float) -> float:
    return 1 - rate if 0 < rate < 1 else _SELDOM
