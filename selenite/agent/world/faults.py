"""Failures that a world is told to have: which calls fail, and how.

A plan is part of a task, so that an episode with failures replays like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from selenite.agent.world.reply import Code


@dataclass(frozen=True)
class Fault:
    """How a call fails. ``after`` (of DEADLINE_EXCEEDED): it is done all the same."""

    code: Code
    after: bool = False
    retry_after: int = 0  # seconds, of RATE_LIMITED


@dataclass(frozen=True)
class FaultPlan:
    """Faults by tool and by the number of its call, counted from 0."""

    faults: Mapping[tuple[str, int], Fault] = field(default_factory=dict)

    def of(self, tool: str, call: int) -> Fault | None:
        """The fault of a call; None: it works."""
        return self.faults.get((tool, call))
