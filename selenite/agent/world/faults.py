"""Failures that a world is told to have: which calls fail, and how.

A plan is part of a task, so that an episode with failures replays like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from selenite.agent.values.kind import Value
from selenite.agent.world.reply import Code


@dataclass(frozen=True)
class Change:
    """A field of a record set by somebody else."""

    entity: str
    id: str
    field: str
    value: Value


@dataclass(frozen=True)
class Fault:
    """How a call fails. ``after`` (of DEADLINE_EXCEEDED): it is done all the same. ``meanwhile``
    (of CONFLICT): what somebody else did just before."""

    code: Code
    after: bool = False
    retry_after: int = 0  # seconds, of RATE_LIMITED
    meanwhile: Change | None = None


@dataclass(frozen=True)
class FaultPlan:
    """Faults by tool and by the number of its call, counted from 0; and tools that fail for good,
    as nobody may use them (PERMISSION_DENIED) or their service is down (UNAVAILABLE)."""

    faults: Mapping[tuple[str, int], Fault] = field(default_factory=dict)
    lasting: Mapping[str, Code] = field(default_factory=dict)

    def of(self, tool: str, call: int) -> Fault | None:
        """The fault of a call; None: it works."""
        if tool in self.lasting:
            return Fault(self.lasting[tool])
        return self.faults.get((tool, call))


NO_FAULTS = FaultPlan()
"""Everything works."""
