"""How long an attempt may be, by what attempts needed that were right.

Every environment has a budget of its own (``Budget``), which cuts. What is here asks for less:

limit    attempts are cut at a multiple of what right ones took, and pay for it (Kimi K2, 3.3.3)
toggle   for some iterations in turn, an attempt that took longer than most right ones earns
         nothing, where most of its group are right; in between length is free (Kimi K2.5)
group    of the right attempts of a group the short ones earn more, the long ones less (Kimi K1.5,
         section 2.3.3)

A length is the tokens that the model wrote, of all turns.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from selenite.config import Config
from selenite.rl.rollout import TAUGHT, Rollout, Status

_RIGHT = 0.5  # reward from which on an attempt counts as right
_SLACK = 64  # tokens that a limit leaves above the quantile, at least


class BudgetConfig(Config):
    """One rule for all environments, with numbers of each."""

    rule: Literal["limit", "toggle", "group"]
    right: int = Field(default=32, ge=1)
    """Right attempts of an environment from whose lengths its budget is set, the first ones, once
    and for all; until then there is none."""
    quantile: float = Field(default=0.95, gt=0, le=1)  # of their lengths
    factor: float = Field(default=1.5, ge=1)  # ``limit``: the budget is this times the quantile
    every: int = Field(default=10, ge=1)  # ``toggle``: iterations of a phase
    solved: float = Field(
        default=0.8, ge=0, le=1
    )  # ``toggle``: mean reward of a group, more counts
    weight: float = Field(default=0.5, gt=0, le=1)  # ``group``: of the length in the reward


class Budgets:
    """What is known of lengths, and what follows from it."""

    def __init__(self, config: BudgetConfig | None) -> None:
        self._config = config
        self._lengths = defaultdict[str, list[int]](list)  # of right attempts, by environment

    @property
    def limits(self) -> Mapping[str, int]:
        """Tokens at which attempts are cut, by environment; where there is none, the environment's
        own budget cuts."""
        config = self._config
        if config is None or config.rule != "limit":
            return {}
        return {
            name: round(max(config.factor * quantile, quantile + _SLACK))
            for name, quantile in self._quantiles(config).items()
        }

    def learn(self, groups: Sequence[Sequence[Rollout]]) -> None:
        """Takes the lengths of right attempts into account, of an environment's first ones."""
        if self._config is None:
            return
        for rollout in (one for group in groups for one in group):
            known = self._lengths[rollout.environment]
            if _is_right(rollout) and len(known) < self._config.right:
                known.append(rollout.num_sampled)

    def rewards(
        self, groups: Sequence[Sequence[Rollout]], iteration: int
    ) -> Sequence[Sequence[Rollout]]:
        """The rollouts with what is learnt from. ``iteration`` counts from 0."""
        config = self._config
        if config is None or config.rule == "limit":
            return groups
        if config.rule == "group":
            return [_shortest_first(group, config.weight) for group in groups]
        if iteration // config.every % 2:  # length is free in every other phase
            return groups
        quantiles = self._quantiles(config)
        return [_held(group, quantiles, config.solved) for group in groups]

    def _quantiles(self, config: BudgetConfig) -> dict[str, float]:
        return {
            name: float(np.quantile(lengths, config.quantile))
            for name, lengths in self._lengths.items()
            if len(lengths) == config.right
        }

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"lengths": dict(self._lengths)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken."""
        self._lengths = defaultdict(list, {k: list(v) for k, v in state["lengths"].items()})


def _is_right(rollout: Rollout) -> bool:
    return rollout.status is Status.DONE and rollout.reward >= _RIGHT


def _held(
    group: Sequence[Rollout], quantiles: Mapping[str, float], solved: float
) -> Sequence[Rollout]:
    """Attempts over the budget earn nothing, in a group that is mostly right."""
    taught = [rollout.reward for rollout in group if rollout.status in TAUGHT]
    if not taught or np.mean(taught) <= solved:
        return group
    return [
        dataclasses.replace(rollout, reward=0.0)
        if rollout.reward > 0
        and rollout.num_sampled > quantiles.get(rollout.environment, float("inf"))
        else rollout
        for rollout in group
    ]


def _shortest_first(group: Sequence[Rollout], weight: float) -> Sequence[Rollout]:
    """``0.5 - (length - shortest) / (longest - shortest)`` is added to what right attempts earn,
    and to what others earn if it is less than 0."""
    lengths = [rollout.num_sampled for rollout in group if rollout.status in TAUGHT]
    if not lengths or max(lengths) == min(lengths):
        return group
    shortest, spread = min(lengths), max(lengths) - min(lengths)
    found = []
    for rollout in group:
        if rollout.status in TAUGHT:
            extra = 0.5 - (rollout.num_sampled - shortest) / spread
            extra = weight * (extra if _is_right(rollout) else min(0.0, extra))
            rollout = dataclasses.replace(rollout, reward=rollout.reward + extra)
        found.append(rollout)
    return found
