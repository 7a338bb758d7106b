"""Our own worlds: tasks that training never sees, along the axes on which it could have.

    in-domain    domains, styles and templates of training, other tasks
                 (of the same records, where a domain has few: no calls that were trained on)
    category, domain, style, template    held out whole (``agent/synthesis/splits.py``)

A task is passed if its rubric finds nothing: records as they should be and nothing else changed,
answers told, nothing forbidden called. Users are code, and know nothing that their card has not.
Between the null agent and the oracle (the script that proves the task solvable), as with the other
suites; ``words`` picks tools and values by what the user's words have in common with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.agent.episodes.episode import Agent, play, play_script, setup
from selenite.agent.episodes.trajectory import Trajectory, Turn
from selenite.agent.judges.rubric import CHECKS
from selenite.agent.models.failure import OF_ENDPOINT, Reason
from selenite.agent.ontology.acceptance import admit, examine
from selenite.agent.roles.agent import LeavingUser, LlmAgent
from selenite.agent.roles.role import Role
from selenite.agent.roles.roles import Roles
from selenite.agent.roles.session import Session
from selenite.agent.synthesis.splits import split_of
from selenite.agent.tasks.author import RECIPES, make_task
from selenite.agent.tasks.task import Task, TaskClass
from selenite.agent.workers import threads
from selenite.agent.world.world import World
from selenite.errors import ConfigError
from selenite.eval.floors import fill, rank
from selenite.eval.statistics import pass_hat_k, wilson
from selenite.types import Message

AXES = ("in-domain", "category", "domain", "style", "template")
_AXIS_OF = {"train": "in-domain", "sample": "in-domain", "persona": "in-domain"}
_FIRST = 1_000_000  # number of the first task: training has lower ones
_SEED = 7  # of the domains that training evolves
DOMAINS = 120  # that are tried, the first ones
_PATIENCE = 2000  # numbers that are tried for each task of an axis


@dataclass(frozen=True)
class Episode:
    """What came of one trial of a task."""

    task: str
    axis: str
    cls: str
    faults: tuple[str, ...]  # names of the rubric's checks that found something
    calls: int
    due: int  # calls of the solution
    tools: int  # that the agent has
    error: str  # of the pipeline; then there is no verdict

    @property
    def passes(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class Case:
    """A task of the suite."""

    axis: str
    task: Task


MakeAgent = Callable[[Task, World, int], Agent]


def cases(
    each: int,
    axes: Sequence[str] = AXES,
    tried: int = DOMAINS,
    unused_tools: int | None = None,
    classes: Sequence[TaskClass] = tuple(RECIPES),
    states: int = 0,
) -> list[Case]:
    """``each`` tasks of every axis. The same for the same arguments, wherever they are made.

    ``tried`` is how many domains are tried, the first ones: 1 is one world. ``unused_tools`` is
    the most tools that a task may have beside those that it is about; None: as it was made.
    ``classes`` are those of the tasks; ``states`` is the corpus' own (``SynthesisConfig``).
    Raises ``ConfigError`` where so many numbers give no tasks of an axis.
    """
    domains = admit(_SEED, (examine(_SEED, number) for number in range(tried))).numbers
    found: dict[str, list[Case]] = {axis: [] for axis in axes}
    for number in range(_FIRST, _FIRST + _PATIENCE * each):
        try:
            task = make_task(_SEED, number, domains, 1, classes=classes, states=states)
        except ConfigError:  # the domain of this number has none of these
            continue
        if unused_tools is not None:
            task = task.with_fewer_tools(unused_tools)
        script = play_script(task)
        assert script is not None
        split = split_of(script)
        if states and split in ("train", "persona"):  # its calls may have been trained on
            continue
        axis = _AXIS_OF.get(split, split)
        if axis in found and len(found[axis]) < each:
            found[axis].append(Case(axis, task))
        if all(len(known) == each for known in found.values()):
            return [case for axis in axes for case in found[axis]]
    lacking = ", ".join(axis for axis, known in found.items() if len(known) < each)
    raise ConfigError(
        f"axis {lacking}: no {each} tasks in {len(domains)} domains; take other axes, or more "
        "domains"
    )


class Null:
    """Never does anything."""

    def act(self, messages: Sequence[Message]) -> Turn:
        return Turn("I cannot help with that.")


class Words:
    """After a text of the user one call, of the tool that is most like it; then says it is done."""

    def __init__(self, task: Task, world: World) -> None:
        self._tools = [world.domain.by_tool[name].spec for name in task.tools]
        self._parameters = {tool.name: tool.parameters for tool in self._tools}

    def act(self, messages: Sequence[Message]) -> Turn:
        if messages[-1].role == "tool":
            return Turn(f"Done. {messages[-1].content}")
        request = messages[-1].content
        ranked = rank(request, self._tools)
        if not ranked:
            return Turn("I cannot help with that.")
        tool = ranked[0][1]
        return Turn("", ((tool.name, fill(request, tool.parameters)),))


FLOORS: Mapping[str, MakeAgent] = {
    "null": lambda task, world, trial: Null(),
    "words": lambda task, world, trial: Words(task, world),
}


def play_case(case: Case, trial: int, roles: Roles | None, make: MakeAgent | None) -> Episode:
    """One trial. With ``roles`` a model acts, with ``make`` whoever it makes, else the oracle."""
    task = case.task
    error = ""
    if roles is None and make is None:
        script = play_script(task)
        assert script is not None
        trajectory = script
    else:
        trajectory, error = _played(task, trial, roles, make)
    faults = tuple(name for name, check in CHECKS.items() if any(check(trajectory)))
    num_calls = sum(len(message.tool_calls) for message in trajectory.messages)
    return Episode(
        task.id,
        case.axis,
        task.cls.value,
        faults,
        num_calls,
        len(task.steps),
        len(task.tools),
        error,
    )


def _played(
    task: Task, trial: int, roles: Roles | None, make: MakeAgent | None
) -> tuple[Trajectory, str]:
    known = setup(task)
    world, user = known.world, known.user
    session = Session(task.setting.seed, "eval", task.number, trial)
    if roles is not None:
        source = roles.of(Role.AGENT, task.number)
        assert source is not None
        tools = [world.domain.by_tool[name] for name in task.tools]
        model = LlmAgent(tools, source, session)
        trajectory = play(task, world, model, LeavingUser(user, model), known.style, known.who)
    else:
        assert make is not None
        trajectory = play(task, world, make(task, world, trial), user, known.style, known.who)
    # An empty reply, and a conversation that outgrows the model's context, are the model's own.
    faults = OF_ENDPOINT - {Reason.EMPTY}
    failed = session.outcomes.of(Role.AGENT).failed
    return trajectory, next((reason for reason in failed if reason in faults), "")


def run(
    known: Sequence[Case],
    trials: int,
    at_once: int = 1,
    roles: Roles | None = None,
    make: MakeAgent | None = None,
    on_episode: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """All trials of all cases, in order."""
    jobs = [(case, trial) for case in known for trial in range(trials)]

    def one(job: tuple[Case, int]) -> Episode:
        episode = play_case(*job, roles, make)
        on_episode()
        return episode

    if at_once == 1:
        return list(map(one, jobs))
    with threads(at_once) as pool:
        return list(pool.map(one, jobs))


def summary(episodes: Sequence[Episode], trials: int) -> dict[str, Any]:
    """By axis: pass^1 with its interval over tasks, pass^k up to the trials, what failed, and
    where on the ladders of calls and tools it does."""
    found = dict[str, Any]()
    for axis in dict.fromkeys(episode.axis for episode in episodes):
        own = [episode for episode in episodes if episode.axis == axis and not episode.error]
        by_task = Counter({episode.task: 0 for episode in own})
        by_task.update(episode.task for episode in own if episode.passes)
        whole = [task for task in by_task if sum(e.task == task for e in own) == trials]
        successes = [by_task[task] for task in whole]
        # Trials of one task are not independent: the interval is that of as many tasks.
        share = sum(successes) / (trials * len(whole)) if whole else 0.0
        low, high = wilson(round(share * len(whole)), len(whole))
        found[axis] = {
            "tasks": len(whole),
            "pass^k": [pass_hat_k(successes, trials, k) for k in range(1, trials + 1)]
            if whole
            else [],
            "low": low,
            "high": high,
            "errors": sum(bool(e.error) for e in episodes if e.axis == axis),
            "faults": dict(Counter(fault for e in own for fault in e.faults).most_common()),
            "classes": _shares(own, lambda e: e.cls),
            "by calls due": _shares(own, lambda e: _rung(e.due, (0, 1, 2, 3, 4))),
            "by tools": _shares(own, lambda e: _rung(e.tools, (8, 16, 24, 32, 48))),
            "calls_over_due": sum(e.calls for e in own) / max(1, sum(e.due for e in own)),
        }
    return found


def _shares(episodes: Sequence[Episode], key: Callable[[Episode], str]) -> dict[str, list[int]]:
    """How many passed, and of how many, by a key."""
    total, passed = Counter(map(key, episodes)), Counter(key(e) for e in episodes if e.passes)
    return {name: [passed[name], total[name]] for name in sorted(total)}


def _rung(value: int, most: Sequence[int]) -> str:
    """The name of the first bound that a number does not exceed."""
    return next((f"{bound:02d}" for bound in most if value <= bound), f"over {most[-1]:02d}")
