"""Which task comes next: environments by weight, tasks by number.

What comes at a place depends on the place alone, so that a run that goes on goes on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selenite.errors import ConfigError
from selenite.rl.gym.environment import HELD_OUT, Environment


@dataclass(frozen=True)
class Assigned:
    """A task for a group."""

    environment: Environment
    number: int


class TaskStream:
    """An endless sequence of tasks in which each environment has its share, as evenly as whole
    numbers allow."""

    def __init__(self, environments: Sequence[Environment], weights: Sequence[float]) -> None:
        assert len(environments) == len(weights) > 0
        names = [environment.name for environment in environments]
        if len(set(names)) < len(names):
            raise ConfigError(f"environments: {', '.join(names)}: each needs a name of its own")
        self._environments = environments
        self._weights = [weight / sum(weights) for weight in weights]
        self._given = [0] * len(environments)

    def take(self) -> Assigned:
        """The next one."""
        total = sum(self._given) + 1
        lack = [w * total - n for w, n in zip(self._weights, self._given, strict=True)]
        place = lack.index(max(lack))
        number = self._given[place]
        assert number < HELD_OUT
        self._given[place] += 1
        return Assigned(self._environments[place], number)

    def assigned(self, name: str, number: int) -> Assigned:
        """A task by the name of its environment, and its number."""
        (environment,) = (known for known in self._environments if known.name == name)
        return Assigned(environment, number)

    @property
    def given(self) -> list[int]:
        """How many tasks of each environment were given: all that a resumed run needs."""
        return list(self._given)

    def resume(self, given: Sequence[int]) -> None:
        """Goes on after so many."""
        assert len(given) == len(self._given)
        self._given = list(given)
