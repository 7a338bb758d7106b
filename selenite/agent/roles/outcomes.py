"""What came of all that models were asked, by role: nothing is dropped without a count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from selenite.agent.models.failure import OF_ENDPOINT
from selenite.agent.roles.role import Role


class Fallback(StrEnum):
    """What stands in the place of something that a model was asked for and that is of no use."""

    CODE = "code"  # what code has: it is kept
    NONE = "none"  # nothing: it failed


@dataclass
class RoleCounts:
    """Of one role. ``asked = accepted + kept + failed``, the latter two by reason."""

    asked: int = 0  # things, however many requests each took
    accepted: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    objections: int = 0  # of code, that the model was told of

    def add(self, other: RoleCounts) -> None:
        """Takes other counts in."""
        self.asked += other.asked
        self.accepted += other.accepted
        self.kept.update(other.kept)
        self.failed.update(other.failed)
        self.objections += other.objections


@dataclass
class Outcomes:
    """By role; only roles that a model had. ``splits``: how the votes of judges fell ("2-1")."""

    by_role: dict[Role, RoleCounts] = field(default_factory=dict)
    splits: Counter[str] = field(default_factory=Counter)

    def of(self, role: Role) -> RoleCounts:
        """The counts of a role, to be added to."""
        return self.by_role.setdefault(role, RoleCounts())

    def add(self, other: Outcomes) -> None:
        """Takes the counts of another item or process in."""
        for role, counts in other.by_role.items():
            self.of(role).add(counts)
        self.splits.update(other.splits)

    def record(self) -> dict[str, Any]:
        """As a manifest has it."""
        roles = {
            role.value: {
                "asked": counts.asked,
                "accepted": counts.accepted,
                "kept": dict(sorted(counts.kept.items())),
                "failed": dict(sorted(counts.failed.items())),
                "objections": counts.objections,
            }
            for role, counts in sorted(self.by_role.items())
        }
        return {"roles": roles, "splits": dict(sorted(self.splits.items()))}

    @property
    def is_cut_off(self) -> bool:
        """Whether something is missing because an endpoint gave no reply."""
        return any(
            reason in OF_ENDPOINT
            for counts in self.by_role.values()
            for reason in (*counts.kept, *counts.failed)
        )

    def check_integrity(self) -> None:
        """All that was asked came to something; asserts it."""
        for role, counts in self.by_role.items():
            ended = counts.accepted + counts.kept.total() + counts.failed.total()
            assert counts.asked == ended, (role, counts)
