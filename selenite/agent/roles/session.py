"""One item while roles work on it: its seeds, what came of each request, and which model made what.

An item's requests are the same in every process and at every try, so that a cache makes a run that
was interrupted go on without paying twice.
"""

from __future__ import annotations

from collections import Counter

from selenite.agent.randomness import stream
from selenite.agent.roles.outcomes import Fallback, Outcomes
from selenite.agent.roles.role import Role


class Session:
    """A task, a tool or a proposal. For one thread."""

    def __init__(self, seed: int, *path: str | int) -> None:
        self.outcomes = Outcomes()
        self.models: dict[str, str] = {}  # by role: whose work was taken
        self._seed = seed
        self._path = path
        self._requests: Counter[Role] = Counter()

    def seed_of(self, role: Role) -> int:
        """The seed of the role's next request."""
        number = self._requests[role]
        self._requests[role] += 1
        return stream(self._seed, "session", *self._path, role.value, number).getrandbits(31)

    def begin(self, role: Role) -> None:
        """A model is asked for something; ``accept`` or ``reject`` says what became of it."""
        self.outcomes.of(role).asked += 1

    def accept(self, role: Role, label: str) -> None:
        """The work of the model ``label`` is used."""
        self.outcomes.of(role).accepted += 1
        self.models[role.value] = label

    def reject(self, role: Role, fallback: Fallback, reason: str) -> None:
        """It is of no use, for a reason."""
        counts = self.outcomes.of(role)
        reasons = counts.kept if fallback is Fallback.CODE else counts.failed
        reasons[reason] += 1

    def merge(self, other: Session) -> None:
        """Takes over what came of a part of this item."""
        self.outcomes.add(other.outcomes)
        self.models |= other.models
