"""Scores of IFEval, and what a model has beyond the best constant reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selenite.eval.ifeval.check import Followed
from selenite.eval.statistics import bootstrap_difference, wilson

VIEWS = ("strict prompts", "strict instructions", "loose prompts", "loose instructions")


@dataclass(frozen=True)
class Result:
    """One agent, or one constant."""

    agent: str
    followed: Mapping[str, Followed]  # by prompt; faults of the pipeline are not in it
    relevance: float
    errors: int = 0  # faults of the pipeline
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shares(self) -> dict[str, float]:
        """By view: of prompts of which all is followed, and of instructions."""
        return {view: _share(self._of(view)) for view in VIEWS}

    @property
    def average(self) -> float:
        """Of both strict shares: the number that leaderboards give."""
        return (self.shares[VIEWS[0]] + self.shares[VIEWS[1]]) / 2

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of strict prompts; instructions of one prompt are not independent."""
        found = self._of(VIEWS[0])
        return wilson(sum(found), len(found))

    @property
    def right(self) -> dict[str, bool]:
        """Of each prompt, whether all is followed strictly."""
        return {key: all(found.strict) for key, found in self.followed.items()}

    def parts(self, keys: Sequence[str]) -> list[float]:
        """What each prompt gives to the average over these: their mean is the average."""
        total = sum(len(self.followed[key].strict) for key in keys)
        return [
            (all(strict) + sum(strict) * len(keys) / total) / 2
            for strict in (self.followed[key].strict for key in keys)
        ]

    def _of(self, view: str) -> list[bool]:
        mode, unit = view.split()
        lists = [f.strict if mode == "strict" else f.loose for f in self.followed.values()]
        if unit == "prompts":
            return [all(each) for each in lists]
        return [one for each in lists for one in each]


@dataclass(frozen=True)
class Lift:
    """A model's average without that of a constant, on the prompts that both have a verdict on."""

    constant: str
    difference: float
    low: float  # of the 95 % interval of a bootstrap over prompts
    high: float


def lift(model: Result, constants: Sequence[Result]) -> Lift:
    """Beyond the best of the constants."""
    keys = sorted(model.followed)
    best = max(constants, key=lambda constant: sum(constant.parts(keys)))
    return Lift(best.agent, *bootstrap_difference(best.parts(keys), model.parts(keys)))


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else 0.0
