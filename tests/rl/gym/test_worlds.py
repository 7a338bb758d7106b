"""Tool worlds as an environment: the oracle earns 1, and who does not act earns nothing."""

from __future__ import annotations

import json
from statistics import mean

import pytest

from selenite.agent.episodes.episode import setup
from selenite.agent.episodes.scripted import ScriptedAgent
from selenite.agent.judges.rubric import faults
from selenite.agent.synthesis.splits import split_of
from selenite.agent.tasks.author import RECIPES
from selenite.agent.tasks.task import TaskClass
from selenite.agent.users.user import CONFIRM
from selenite.rl.gym.audit import SPEAKERS, Agent, attempt
from selenite.rl.gym.environment import HELD_OUT
from selenite.rl.gym.worlds import Worlds, WorldTask
from selenite.types import Message, ToolCall

IDLE = {TaskClass.NO_TOOL, TaskClass.FORBIDDEN, TaskClass.DENIED}
"""Classes in which doing nothing can be right."""


@pytest.fixture(scope="module")
def worlds() -> Worlds:
    return Worlds(seed=7, domains=30, classes=[cls for cls in RECIPES if cls not in IDLE])


def by_script(worlds: Worlds, number: int) -> WorldTask:
    """The oracle through the environment's own door: text and JSON alone."""
    task = worlds.task(number)
    known = setup(task)
    agent = ScriptedAgent(task, known.style, known.world, known.spoil)
    episode = worlds.begin(number)
    messages = list(episode.opening)
    for _ in range(40):
        turn = agent.act(messages)
        calls = tuple(
            ToolCall(name, json.dumps(dict(arguments)), f"call-{len(messages)}-{i}")
            for i, (name, arguments) in enumerate(turn.calls)
        )
        message = Message("assistant", turn.content, tool_calls=calls)
        more = episode.reply(message)
        assert [m.tool_call_id for m in more if m.role == "tool"] == [call.id for call in calls]
        messages += [message, *more]
        if not more:
            break
    return episode


def test_the_oracle_earns_everything(worlds: Worlds) -> None:
    for number in [*range(25), *range(HELD_OUT, HELD_OUT + 5)]:
        episode = by_script(worlds, number)
        assert episode.score().value == 1, episode.score()
        assert not faults(episode.trajectory)


def test_training_and_evaluation_have_other_domains(worlds: Worlds) -> None:
    train = [by_script(worlds, number).trajectory for number in range(12)]
    held_out = [by_script(worlds, HELD_OUT + number).trajectory for number in range(6)]
    assert {split_of(trajectory) for trajectory in train} == {"train"}
    assert {split_of(trajectory) for trajectory in held_out} <= {"domain", "category"}
    own = {trajectory.domain.id for trajectory in train}
    assert not own & {trajectory.domain.id for trajectory in held_out}
    assert worlds.task(3).record() == worlds.task(3).record()


def calling(pick: str) -> Agent:
    """Calls tools without looking at the request."""

    def act(messages, tools, rng):  # type: ignore[no-untyped-def]
        if messages[-1].role == "tool":
            return Message("assistant", f"Done. {messages[-1].content}")
        chosen = tools if pick == "all" else [rng.choice(tools)]
        calls = tuple(
            ToolCall(tool.name, "{}", f"{len(messages)}-{i}") for i, tool in enumerate(chosen)
        )
        return Message("assistant", "", tool_calls=calls)

    return act


def agreeing(messages, tools, rng):  # type: ignore[no-untyped-def]
    """Asks for a yes, then says that it is done."""
    asked = any(CONFIRM.search(message.content.lower()) for message in messages)
    return Message("assistant", "It is done." if asked else "Please confirm: should I do it?")


def test_who_does_not_try_earns_next_to_nothing(worlds: Worlds) -> None:
    agents = {
        **SPEAKERS,
        "calling all": calling("all"),
        "calling any": calling("any"),
        "agreeing": agreeing,
    }
    for name, agent in agents.items():
        earned = mean(attempt(worlds, number, agent) for number in range(30))
        assert earned <= 0.04, name


def test_silence_earns_nothing_where_doing_nothing_can_be_right() -> None:
    idle = Worlds(seed=7, domains=12, classes=sorted(IDLE))
    for number in range(20):
        for name in ("silent", "longest", "guessing", "listing"):
            assert attempt(idle, number, SPEAKERS[name]) == 0, (number, name)


def test_a_task_has_no_more_tools_than_asked_for() -> None:
    few = Worlds(seed=7, domains=10, unused_tools=2)
    for number in range(8):
        task = few.task(number)
        assert len(task.tools) <= len({step.tool for step in task.steps}) + len(task.forbidden) + 2
        assert len(few.begin(number).tools) == len(task.tools)


def test_whatever_is_called_is_answered(worlds: Worlds) -> None:
    episode = worlds.begin(0)
    odd = (
        ToolCall("", "{}", "a"),
        ToolCall("no_such_tool", '{"id": 1}', "b"),
        ToolCall(episode.tools[0].name, "not json", "c"),
        ToolCall(episode.tools[0].name, "[" * 5000, "d"),
        ToolCall(episode.tools[0].name, '{"x": NaN}', "e"),
    )
    more = episode.reply(Message("assistant", "", tool_calls=odd))
    assert [message.tool_call_id for message in more] == ["a", "b", "c", "d", "e"]
    assert all("error" in json.loads(message.content) for message in more)
    assert episode.score().value == 0
