"""Endpoints that misbehave in a role: it is counted, and the episode ends as a trajectory."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges import form, replay
from selenite.agent.judges.verdict import judge
from selenite.agent.ontology.archetypes import categories
from selenite.agent.roles.agent import GAVE_UP
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import judge_roles, play_roles, propose_archetype
from selenite.agent.roles.role import Role
from selenite.agent.tasks.task import Task
from tests.agent.models.stub import answer, calling
from tests.agent.roles.stub import Reply, Stage, one_stage, original, task_of, text
from tests.fixtures.scripted_server import Answer, json_answer

OTHERS = tuple(role for role in Role if role is not Role.AGENT)
"""Roles in whose place code stands when they fail; of an agent nothing does."""
TEXTS = (Role.TASK_AUTHOR, Role.TOOL_AUTHOR, Role.AGENT_AUTHOR, Role.USER)
"""Roles that put a text in other words."""
ANY: dict[str, tuple[Answer, str]] = {
    "cut json": (Answer([(0.0, b'{"choices": [')]), "malformed"),
    "a list": (json_answer([1]), "malformed"),
    "half a pair": (answer("\ud800"), "malformed"),
    "no choices": (json_answer({"choices": []}), "empty"),
    "blank": (answer(" \n"), "empty"),
    "full": (json_answer({}, 429), "rate_limited"),
    "full for hours": (json_answer({}, 429, Retry_After="7200"), "rate_limited"),
    "broken": (json_answer({}, 500), "server_error"),
    "bad request": (json_answer({"error": {"message": "no"}}, 400), "refused"),
    "filtered": (answer("half", "content_filter"), "declined"),
    "thought too long": (answer(None, "length", reasoning="hm"), "truncated"),
    "connection cut": (Answer([(0.0, b'{"cho')], is_cut=True), "connection"),
}
"""In whatever role, and the reason that is counted."""
NO_JSON: dict[str, tuple[Answer, str]] = {
    "prose": (answer("I would rather not."), "not_json"),
    "half an object": (answer('{"text": "so'), "not_json"),
    "another object": (text({"answer": 1}), "not_of_schema"),
    "an empty object": (text({}), "not_of_schema"),
    "another type": (text({"text": 3, "verdict": "x", "name": 1, "result": 2}), "not_of_schema"),
    "cut at the limit": (answer('{"text": "so', "length"), "truncated"),
    "a call": (calling(("get_order", "{}")), "not_json"),
}
"""Where an object is due."""


def small_task() -> Task:
    """One with few tools, so that a tool's author is asked little."""
    tasks = [task for n in range(200) if (task := task_of(n)).steps]
    return min(tasks, key=lambda task: len(task.tools))


SMALL = small_task()
TOOL = next(
    tool.name
    for tool in SMALL.setting.open().domain.tools
    if tool.name in SMALL.tools and any(param.required for param in tool.params)
)
"""A tool that cannot be called without arguments."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with one_stage() as opened:
        yield opened


def played(
    stage: Stage, reply: Reply, *roles: Role, task: Task = SMALL, **options: Any
) -> tuple[Trajectory, Outcomes]:
    """An episode with its judgement; it is checked that all is counted and can be written."""
    opened = stage.roles(reply, *roles, **options)
    trajectory, outcomes = play_roles(task, opened, task.number)
    _, votes = judge_roles(trajectory, opened, task.number)
    outcomes.add(votes)
    outcomes.add(propose_archetype(categories()[0], opened, 6, 0)[1])
    outcomes.check_integrity()
    assert outcomes.by_role.keys() <= set(roles)
    assert trajectory.ended in ("done", "patience", "turns", GAVE_UP)
    assert json.dumps(trajectory.record(), ensure_ascii=False, allow_nan=False).encode()
    assert not replay.faults(trajectory)
    return trajectory, outcomes


def check_code_stands(
    trajectory: Trajectory, outcomes: Outcomes, reason: str, *roles: Role
) -> None:
    """Nothing of what was asked is used, for this reason; the episode is as good as without."""
    assert outcomes.by_role.keys() == set(roles)
    for counts in outcomes.by_role.values():
        assert counts.kept + counts.failed == {reason: counts.asked}
        assert counts.asked > 0
    assert not trajectory.models
    assert judge(trajectory).passes


def check_gave_up(trajectory: Trajectory, outcomes: Outcomes, reason: str) -> None:
    assert outcomes.of(Role.AGENT).failed == {reason: 1}
    assert trajectory.ended == GAVE_UP
    assert judge(trajectory).reason == "rubric"


@pytest.mark.parametrize("name", ANY)
def test_what_goes_wrong_in_every_role(stage: Stage, name: str) -> None:
    bad, reason = ANY[name]
    check_code_stands(*played(stage, lambda body: bad, *OTHERS), reason, *OTHERS)
    check_gave_up(*played(stage, lambda body: bad, Role.AGENT), reason)
    check_gave_up(*played(stage, lambda body: bad, *Role), reason)


@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_not_the_object_that_is_due(stage: Stage, name: str) -> None:
    bad, reason = NO_JSON[name]
    check_code_stands(*played(stage, lambda body: bad, *OTHERS), reason, *OTHERS)


def test_endpoints_that_are_silent(stage: Stage) -> None:
    silent = Answer([(0.3, b"{}")])
    options = {"timeout": 0.1, "retries": 0, "votes": 1}
    check_code_stands(*played(stage, lambda body: silent, *OTHERS, **options), "timeout", *OTHERS)
    check_gave_up(*played(stage, lambda body: silent, Role.AGENT, **options), "timeout")


# --- texts


def spoilt(body: dict[str, Any], change: Callable[[str], str]) -> Answer:
    return text({"text": change(original(body))})


INVENTIONS: dict[str, tuple[Callable[[str], str], str]] = {
    "an id": (lambda said: f"{said} I mean ORD-9999.", "invented"),
    "a number": (lambda said: f"{said} Do it 77 times.", "invented"),
    "a number in words": (lambda said: f"{said} Do it seventeen times.", "invented"),
    "a date": (lambda said: f"{said} It is for 2027-03-04.", "invented"),
    "a weekday": (lambda said: f"{said} It is for Tuesday.", "invented"),
    "a name": (lambda said: f"{said} It is for Gwendolyn.", "invented"),
    "an address": (lambda said: f"{said} Write to x@example.org.", "invented"),
    "a quote": (lambda said: f'{said} Call it "as good as gold".', "invented"),
    "the same": (lambda said: said, "unchanged"),
    "blanks": (lambda said: " \n ", "blank"),
    "a novel": (lambda said: f"{said} {'So it is. ' * 150}", "not_of_schema"),
    "control characters": (lambda said: f"Oh, {said}\0", "not_plain"),
    "another sense": (lambda said: f"Do not do this. {said}", "changed_sense"),
}


@pytest.mark.parametrize("name", INVENTIONS)
def test_texts_that_are_not_what_they_stand_for(stage: Stage, name: str) -> None:
    change, reason = INVENTIONS[name]
    trajectory, outcomes = played(stage, lambda body: spoilt(body, change), *TEXTS, repairs=1)
    check_code_stands(trajectory, outcomes, reason, *TEXTS)
    told = int(reason != "not_of_schema")  # that is told by ``Model``
    assert all(counts.objections == told * counts.asked for counts in outcomes.by_role.values())


def test_a_user_that_loses_what_the_card_says(stage: Stage) -> None:
    trajectory, outcomes = played(stage, lambda body: text({"text": "Do it."}), Role.USER)
    assert judge(trajectory).passes
    assert outcomes.of(Role.USER).kept.total() == outcomes.of(Role.USER).asked


def test_a_model_that_does_better_when_it_is_told(stage: Stage) -> None:
    def reply(body: dict[str, Any]) -> Answer:
        said = body["messages"][-1]["content"]
        if said.startswith("That cannot be used"):
            assert "'ORD-9999'" in said or "'9999'" in said
            return spoilt(body, lambda said: f"Ahem! {said}")
        return spoilt(body, lambda said: f"{said} And ORD-9999.")

    trajectory, outcomes = played(stage, reply, Role.USER, Role.TASK_AUTHOR, repairs=1)
    for role in (Role.USER, Role.TASK_AUTHOR):
        counts = outcomes.of(role)
        assert counts.accepted == counts.objections == counts.asked > 0
    assert judge(trajectory).passes


# --- agents

CALLS: dict[str, list[tuple[str, Any]]] = {
    "a tool that is not there": [("no_such_tool", "{}")],
    "no name": [("", "{}")],
    "a name that is none": [("größe 🙂 \n", "{}")],
    "no json": [("TOOL", "id=3")],
    "half an object": [("TOOL", '{"id": "A')],
    "a list": [("TOOL", "[1, 2]")],
    "a text": [("TOOL", '"x"')],
    "null": [("TOOL", "null")],
    "nothing": [("TOOL", "")],
    "no numbers": [("TOOL", '{"a": NaN, "b": Infinity}')],
    "numbers without end": [("TOOL", f'{{"a": {"9" * 400}, "b": 1e999}}')],
    "too many digits": [("TOOL", f'{{"a": {"9" * 5000}}}')],
    "half a pair": [("TOOL", '{"a": "\\ud800", "\\udfff": 1}')],
    "nested without end": [("TOOL", '{"a":' * 3000 + "1" + "}" * 3000)],
    "many calls": [("TOOL", "{}")] * 60,
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_are_wrong_are_refused_by_the_world(stage: Stage, name: str) -> None:
    """They stay in the conversation, with no loss on them; then the agent asks, and says bye."""
    calls = [(TOOL if tool == "TOOL" else tool, args) for tool, args in CALLS[name]]

    def reply(body: dict[str, Any]) -> Answer:
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        return calling(*calls, content="Hm.") if turn < 2 else answer("It is over.")

    trajectory, outcomes = played(stage, reply, Role.AGENT)
    assert len(trajectory.events) == 2 * len(calls)
    assert not any(event.reply.is_ok for event in trajectory.events)
    assert trajectory.before.digest() == trajectory.after.digest()
    assert {2, 3 + len(calls)} <= trajectory.untrained
    assert not form.faults(trajectory)
    assert outcomes.of(Role.AGENT).accepted == outcomes.of(Role.AGENT).asked >= 3
    assert trajectory.models == {"agent": "agent"}


def test_an_agent_that_never_ends(stage: Stage) -> None:
    reply = calling((TOOL, "{}"))
    trajectory, outcomes = played(stage, lambda body: reply, Role.AGENT)
    assert trajectory.ended == "turns"
    assert outcomes.of(Role.AGENT).asked == 40


def test_an_agent_that_breaks_down_midway(stage: Stage) -> None:
    def reply(body: dict[str, Any]) -> Answer:
        if any(message["role"] == "tool" for message in body["messages"]):
            return json_answer({"choices": []})
        return calling((TOOL, "{}"))

    trajectory, outcomes = played(stage, reply, Role.AGENT, Role.USER)
    assert trajectory.ended == GAVE_UP
    assert outcomes.of(Role.AGENT).failed == {"empty": 1}
    assert outcomes.of(Role.AGENT).accepted == 1
    assert outcomes.of(Role.USER).asked == 1  # nobody words the goodbye of a user who is gone
    assert judge(trajectory).faults["rubric"][-1] == "it ended by gave_up"


def test_agents_that_call_at_random(stage: Stage) -> None:
    """Arguments of every type, right and wrong ones, for all tools: no episode breaks."""
    values: list[Any] = [
        *(0, -1, 3, 2.0, 1e15, 10**15, True, None, "", "x", [], {}, [1], ["x", "x"], {"a": 1}),
        *("2026-01-05", "20260105", "20260105T10:00", "2026-W02-1", "2026-01-05T10:00:00+02:00"),
    ]
    for number in range(0, 60, 6):
        task = task_of(number)
        world = task.setting.open()
        rng = random.Random(number)

        def arguments(name: str, rng: random.Random = rng, world: Any = world) -> str:
            tool = world.domain.by_tool[name]
            ids = [id for entity in world.domain.entities for id in world.records.of(entity.name)]
            found: dict[str, Any] = {}
            for param in tool.params:
                if not param.required and rng.random() < 0.4:
                    continue
                drawn = param.kind.draw(rng, world.today)
                found[param.name] = rng.choice([drawn, drawn, rng.choice(values), rng.choice(ids)])
            return json.dumps(found)

        def reply(body: dict[str, Any], rng: random.Random = rng, task: Task = task) -> Answer:
            if len(body["messages"]) > 2 and rng.random() < 0.1:
                return answer("So be it.")
            return calling(*((name, arguments(name)) for name in rng.choices(task.tools, k=8)))

        trajectory, _ = played(stage, reply, Role.AGENT, task=task)
        assert len(trajectory.events) > 0
        assert trajectory.ended == "turns" or not form.faults(trajectory)
