"""A model's opinion on a trajectory that code lets pass: some votes, of which the majority counts.

code's judges ──object──► rejected, and no model is asked
      └──let pass──► votes ──majority objects──► rejected by "model"
                        └──else──► passes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges.verdict import Verdict
from selenite.agent.roles.ask import ask
from selenite.agent.roles.case import case_of
from selenite.agent.roles.outcomes import Fallback
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source

MODEL = "model"
"""The judge's name in a verdict."""

_SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": 300},
        "verdict": {"type": "boolean"},
    },
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Votes:
    """How a model's votes fell."""

    passing: int = 0
    objections: tuple[str, ...] = ()  # the reasons of those against
    void: int = 0  # of which no use could be made

    @property
    def agreement(self) -> float | None:
        """The share of the larger side; None: there are no votes."""
        valid = self.passing + len(self.objections)
        return max(self.passing, len(self.objections)) / valid if valid else None

    @property
    def split(self) -> str:
        """In short: ``2-1``, and with void ones ``1-1-1``."""
        found = f"{self.passing}-{len(self.objections)}"
        return f"{found}-{self.void}" if self.void else found


class Voter(Protocol):
    """Has an opinion on trajectories."""

    def votes(self, trajectory: Trajectory) -> Votes:
        """The votes on one."""


class NoVoter:
    """Leaves it to code."""

    def votes(self, trajectory: Trajectory) -> Votes:
        """None."""
        return Votes()


class LlmJudge:
    """Asks a model as often as its source says, each time with another seed."""

    def __init__(self, source: Source, session: Session) -> None:
        self._source = source
        self._session = session

    def votes(self, trajectory: Trajectory) -> Votes:
        """The model's votes; those of no use are void and counted as failed."""
        messages = self._source.prompt.messages(**case_of(trajectory))
        passing, objections, void = 0, [], 0
        for _ in range(self._source.votes):
            found = ask(self._source, self._session, messages, _SCHEMA, _read, Fallback.NONE)
            if found is None:
                void += 1
            elif found[0]:
                passing += 1
            else:
                objections.append(found[1])
        votes = Votes(passing, tuple(objections), void)
        self._session.outcomes.splits[votes.split] += 1
        return votes


def combined(code: Verdict, votes: Votes) -> Verdict:
    """Code's verdict, and the model's objections where code has none and most votes object."""
    if not code.passes or len(votes.objections) <= votes.passing:
        return code
    return Verdict({MODEL: votes.objections})


def _read(answer: dict[str, Any]) -> tuple[bool, str]:
    return answer["verdict"], answer["reason"]
