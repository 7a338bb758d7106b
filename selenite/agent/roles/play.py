"""Plays a task with whoever has its roles, and judges what came of it.

    task ─► its author ─► its tools' ─► its agent's ─► user ◄─► agent ◄─► world ─► trajectory
                                                                                      │
    verdict ◄── votes, if code lets it pass ◄── code's judges ◄───────────────────────┘

With all roles code's it is ``episodes.episode.play_script``. An item follows from the corpus's
seed, its number and the models' answers: with a cache a second run gives the same, and asks only
what is not there. Threads and processes may play tasks in any order.
"""

from __future__ import annotations

from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges.verdict import Verdict, judge
from selenite.agent.ontology.archetypes import Category
from selenite.agent.roles.archetype import Archetype
from selenite.agent.roles.cast import Cast
from selenite.agent.roles.domain_author import DomainAuthor, LlmDomainAuthor, PlainDomainAuthor
from selenite.agent.roles.judge import LlmJudge, NoVoter, Voter, combined
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.role import Role
from selenite.agent.roles.roles import Roles
from selenite.agent.roles.session import Session
from selenite.agent.tasks.task import Task


def play_roles(task: Task, roles: Roles, number: int) -> tuple[Trajectory, Outcomes]:
    """The episode of a task, and what came of all that models were asked for it.

    Whatever the models do, it ends as a trajectory: one whose agent gave up ends by that. Raises
    ``StorageError`` where cache or ledger cannot be written.
    """
    cast = Cast(task, roles, number)
    trajectory = cast.play()
    return trajectory, cast.session.outcomes


def judge_roles(trajectory: Trajectory, roles: Roles, number: int) -> tuple[Verdict, Outcomes]:
    """Code's verdict, and the votes' where code objects to nothing."""
    session = Session(trajectory.task.setting.seed, "verdict", number)
    verdict = judge(trajectory)
    if not verdict.passes:
        return verdict, session.outcomes
    source = roles.of(Role.JUDGE, number)
    voter: Voter = NoVoter() if source is None else LlmJudge(source, session)
    return combined(verdict, voter.votes(trajectory)), session.outcomes


def propose_archetype(
    category: Category, roles: Roles, seed: int, number: int
) -> tuple[Archetype | None, Outcomes]:
    """Proposal ``number`` of a seed, for a category; None: there is none that works."""
    session = Session(seed, "proposal", number)
    source = roles.of(Role.DOMAIN_AUTHOR, number)
    author: DomainAuthor = (
        PlainDomainAuthor() if source is None else LlmDomainAuthor(seed, source, session)
    )
    return author.proposal(category, number), session.outcomes
