"""Plays a task: a user, an agent, and a world between them.

user ─► agent ─► calls? ─► world ─► agent ...
             └─► text ─► user ─► agent ..., or the user leaves
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from selenite.agent.episodes.defects import Defect
from selenite.agent.episodes.scripted import ScriptedAgent
from selenite.agent.episodes.style import AgentStyle, agent_style
from selenite.agent.episodes.trajectory import Stage, Trajectory, Turn
from selenite.agent.randomness import stream
from selenite.agent.tasks.task import Task
from selenite.agent.users.persona import persona
from selenite.agent.users.user import CardUser, User
from selenite.agent.world.world import World
from selenite.types import Message, ToolCall

_TURNS = 40
PERSONAS = 400
AGENTS = 5000


class Agent(Protocol):
    """Whoever acts."""

    def act(self, messages: Sequence[Message]) -> Turn:
        """The next turn after these messages."""


class Play:
    """An episode as it goes, in a world that was just opened: a turn in, what follows it out.

    ``messages`` is the conversation so far, ``tools`` are the agent's.
    """

    def __init__(
        self, task: Task, world: World, user: User, style: AgentStyle, who: int = 0
    ) -> None:
        self._task, self._world, self._user = task, world, user
        self._style, self._who = style, who
        self._before = world.records.copy()
        self.tools = tuple(world.domain.by_tool[name].spec for name in task.tools)
        self.messages = [Message("system", style.system(task, world)), Message("user", user.open())]
        self._told = dict.fromkeys(sorted(user.said), 1)
        self._untrained = set[int]()
        self._stages = list[Stage]()
        self._ended, self._num_calls = "turns", 0

    def take(self, turn: Turn) -> list[Message]:
        """What follows: the results of its calls, or the user's words. Nothing: the user left."""
        calls = tuple(
            ToolCall(name, json.dumps(dict(arguments), ensure_ascii=False), f"functions.{name}:{i}")
            for i, (name, arguments) in enumerate(turn.calls, self._num_calls)
        )
        if not turn.is_trained:
            self._untrained.add(len(self.messages))
        self.messages.append(Message("assistant", turn.content, tool_calls=calls))
        self._num_calls += len(calls)
        first = len(self.messages)
        for call, (name, arguments) in zip(calls, turn.calls, strict=True):
            reply = self._world.call(name, arguments)
            self.messages.append(Message("tool", reply.text(), tool_call_id=call.id))
        if not calls:
            self._tell(turn.content)
        return self.messages[first:]

    def _tell(self, text: str) -> None:
        user = self._user
        wish, answer = user.wish, user.reply(text)
        if answer is None:
            self._ended = "left"
            return
        if user.wish > wish:
            self._stages.append(Stage(len(self.messages), self._world.records.copy()))
        for slot in sorted(user.said):
            self._told.setdefault(slot, len(self.messages))
        self.messages.append(Message("user", answer))

    def trajectory(self) -> Trajectory:
        """Of what has happened so far."""
        return Trajectory(
            task=self._task,
            persona=self._who,
            agent=self._style.number,
            messages=tuple(self.messages),
            tools=self.tools,
            events=tuple(self._world.events),
            before=self._before,
            stages=tuple(self._stages),
            after=self._world.records,
            ended=self._user.ended or self._ended,
            told=self._told,
            untrained=frozenset(self._untrained),
        )


def play(
    task: Task, world: World, agent: Agent, user: User, style: AgentStyle, who: int = 0
) -> Trajectory:
    """One episode in a world that was just opened. Ends when the user leaves, or after 40 turns."""
    episode = Play(task, world, user, style, who)
    for _ in range(_TURNS):
        if not episode.take(agent.act(episode.messages)):
            break
    return episode.trajectory()


@dataclass(frozen=True)
class Setup:
    """Who takes part in a task's episode, by its number."""

    world: World  # just opened
    user: CardUser
    style: AgentStyle
    who: int  # the user's persona
    spoil: random.Random  # for an agent with a defect


def setup(task: Task) -> Setup:
    """The same for the same task."""
    rng = stream(task.setting.seed, "episode", task.number)
    world, who = task.setting.open(), rng.randrange(PERSONAS)
    user = CardUser(task, persona(who), world, stream(rng.getrandbits(32), "user"))
    return Setup(world, user, agent_of(task), who, stream(rng.getrandbits(32), "agent"))


def agent_of(task: Task) -> AgentStyle:
    """Who has a task. Tasks that begin in the same records have one agent: what it is told is then
    the same, and is computed once where they are learnt together."""
    place = task.setting
    rng = stream(place.seed, "agent of", place.domain, place.world, place.extension)
    return agent_style(rng.randrange(AGENTS))


def play_script(task: Task, defect: Defect | None = None) -> Trajectory | None:
    """The episode of a task with the scripted agent and the user of its number; None: the defect
    found no place in it."""
    known = setup(task)
    agent = ScriptedAgent(task, known.style, known.world, known.spoil, defect)
    trajectory = play(task, known.world, agent, known.user, known.style, known.who)
    if defect is None:
        return trajectory
    if not agent.did_spoil:
        return None
    return dataclasses.replace(trajectory, defect=defect.value)
