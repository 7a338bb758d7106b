"""Plays a task: a user, an agent, and a world between them.

user ─► agent ─► calls? ─► world ─► agent ...
             └─► text ─► user ─► agent ..., or the user leaves
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
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


def play(
    task: Task, world: World, agent: Agent, user: User, style: AgentStyle, who: int = 0
) -> Trajectory:
    """One episode in a world that was just opened. Ends when the user leaves, or after 40 turns."""
    before = world.records.copy()
    tools = tuple(world.domain.by_tool[name].spec for name in task.tools)
    messages = [Message("system", style.system(task, world)), Message("user", user.open())]
    told = dict.fromkeys(sorted(user.said), 1)
    untrained, stages, ended, num_calls = set(), list[Stage](), "turns", 0
    for _ in range(_TURNS):
        turn = agent.act(messages)
        calls = tuple(
            ToolCall(name, json.dumps(dict(arguments), ensure_ascii=False), f"functions.{name}:{i}")
            for i, (name, arguments) in enumerate(turn.calls, num_calls)
        )
        if not turn.is_trained:
            untrained.add(len(messages))
        messages.append(Message("assistant", turn.content, tool_calls=calls))
        num_calls += len(calls)
        for call, (name, arguments) in zip(calls, turn.calls, strict=True):
            reply = world.call(name, arguments)
            messages.append(Message("tool", reply.text(), tool_call_id=call.id))
        if calls:
            continue
        wish, answer = user.wish, user.reply(turn.content)
        if answer is None:
            ended = "left"
            break
        if user.wish > wish:
            stages.append(Stage(len(messages), world.records.copy()))
        for slot in sorted(user.said):
            told.setdefault(slot, len(messages))
        messages.append(Message("user", answer))
    return Trajectory(
        task=task,
        persona=who,
        agent=style.number,
        messages=tuple(messages),
        tools=tools,
        events=tuple(world.events),
        before=before,
        stages=tuple(stages),
        after=world.records,
        ended=user.ended or ended,
        told=told,
        untrained=frozenset(untrained),
    )


def play_script(task: Task, defect: Defect | None = None) -> Trajectory | None:
    """The episode of a task with the scripted agent and the user of its number; None: the defect
    found no place in it."""
    rng = stream(task.setting.seed, "episode", task.number)
    world = task.setting.open()
    style, who = agent_style(rng.randrange(AGENTS)), rng.randrange(PERSONAS)
    user = CardUser(task, persona(who), world, stream(rng.getrandbits(32), "user"))
    spoil = stream(rng.getrandbits(32), "agent")
    agent = ScriptedAgent(task, style, world, spoil, defect)
    trajectory = play(task, world, agent, user, style, who)
    if defect is None:
        return trajectory
    if not agent.did_spoil:
        return None
    return dataclasses.replace(trajectory, defect=defect.value)
