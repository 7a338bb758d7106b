"""A model's votes, which never help what code rejects; and a world played beside the true one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from selenite.agent.episodes.defects import Defect
from selenite.agent.episodes.episode import play_script
from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges.verdict import Verdict, judge
from selenite.agent.roles.case import case_of
from selenite.agent.roles.judge import MODEL, Votes, combined
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import judge_roles, play_roles
from selenite.agent.roles.role import Role
from selenite.agent.roles.tool_world import drift
from selenite.agent.tasks.task import Task, TaskClass
from selenite.agent.world.reply import Code
from tests.agent.models.stub import answer
from tests.agent.roles.stub import GoodEndpoint, Stage, one_stage, task_of, text
from tests.fixtures.scripted_server import Answer

GOOD = Verdict({})
BAD = Verdict({"form": ("empty",)})


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with one_stage() as opened:
        yield opened


def script_of(number: int, defect: Defect | None = None) -> Trajectory:
    found = play_script(task_of(number), defect)
    assert found is not None
    return found


# --- judges


@pytest.mark.parametrize(
    ("votes", "agreement", "split", "passes"),
    [
        (Votes(), None, "0-0", True),
        (Votes(3), 1.0, "3-0", True),
        (Votes(2, ("no",)), 2 / 3, "2-1", True),
        (Votes(1, ("no",)), 0.5, "1-1", True),
        (Votes(1, ("no", "never")), 2 / 3, "1-2", False),
        (Votes(0, ("no",), 2), 1.0, "0-1-2", False),
        (Votes(0, (), 3), None, "0-0-3", True),
    ],
)
def test_votes(votes: Votes, agreement: float | None, split: str, passes: bool) -> None:
    assert (votes.agreement, votes.split) == (agreement, split)
    verdict = combined(GOOD, votes)
    assert verdict.passes is passes
    assert passes or verdict.faults == {MODEL: votes.objections}
    assert combined(BAD, votes) == BAD


def voted(stage: Stage, trajectory: Trajectory, *answers: Answer) -> tuple[Verdict, Outcomes]:
    rest = list(answers)
    roles = stage.roles(lambda body: rest.pop(0), Role.JUDGE, repairs=0, votes=len(answers))
    verdict, outcomes = judge_roles(trajectory, roles, trajectory.task.number)
    outcomes.check_integrity()
    return verdict, outcomes


YES, NO = text({"reason": "good", "verdict": True}), text({"reason": "bad", "verdict": False})


def test_the_majority_of_votes_decides_where_code_objects_to_nothing(stage: Stage) -> None:
    verdict, outcomes = voted(stage, script_of(1), NO, YES, NO)
    assert verdict.faults == {MODEL: ("bad", "bad")}
    assert outcomes.splits == {"1-2": 1}
    assert outcomes.of(Role.JUDGE).accepted == 3
    verdict, outcomes = voted(stage, script_of(1), NO, YES, answer("Well."))
    assert verdict.passes
    assert outcomes.splits == {"1-1-1": 1}
    assert outcomes.of(Role.JUDGE).failed == {"not_json": 1}


def test_no_model_is_asked_where_code_objects(stage: Stage) -> None:
    spoilt = next(
        found for n in range(60) if (found := play_script(task_of(n), Defect.CLAIMED_NOT_DONE))
    )
    verdict, outcomes = voted(stage, spoilt, YES, YES, YES)
    assert verdict == judge(spoilt)
    assert not verdict.passes
    assert outcomes == Outcomes()


def test_the_case_has_all_that_decides() -> None:
    for number in range(60):
        trajectory = script_of(number)
        task, case = trajectory.task, case_of(trajectory)
        world = task.setting.open()
        assert all(a.forms[0] in case["must_say"] for phase in task.phases for a in phase.answers)
        assert all(name in case["forbidden"] for name in task.forbidden)
        assert all(policy.sentence() in case["policies"] for policy in world.domain.policies)
        assert "{" not in case["requests"] or "'" in case["requests"]
        for predicate in task.goal.predicates:
            assert predicate.entity in case["goal"]
        for message in trajectory.messages[1:]:
            assert message.content[:100] in case["conversation"]
            assert all(call.name in case["conversation"] for call in message.tool_calls)


# --- worlds


def of_class(cls: TaskClass) -> Task:
    return next(task for n in range(400) if (task := task_of(n)).cls is cls)


def test_what_the_world_does_is_what_is_so(stage: Stage) -> None:
    """A model that answers right but for one record: the replies are shown, the truth is kept."""
    task = task_of(1)
    good = GoodEndpoint(task)

    def reply(body: dict[str, Any]) -> Answer:
        right = json.loads(good(body).steps[0][1])["choices"][0]["message"]["content"]
        found = json.loads(right)
        if "result" in found:
            id = found["result"]["id"]
            found["result"]["id"] = f"{id[:-1]}{(int(id[-1]) + 1) % 10}"
        return text(found)

    roles = stage.roles(reply, Role.TOOL_WORLD, repairs=0)
    trajectory, outcomes = play_roles(task, roles, 1)
    script = script_of(1)
    assert trajectory.events == script.events
    assert outcomes.of(Role.TOOL_WORLD).accepted == len(trajectory.events) > 0
    assert len(drift(trajectory)) == len(trajectory.events)
    assert not drift(script)
    assert judge_roles(trajectory, roles, 1)[0].reason == "replay"
    assert judge_roles(replace(trajectory, messages=script.messages), roles, 1)[0].passes


def test_replies_that_differ_only_in_the_words_of_an_error_do_not_drift(stage: Stage) -> None:
    task = of_class(TaskClass.REPAIR)
    good = GoodEndpoint(task)

    def reply(body: dict[str, Any]) -> Answer:
        found = json.loads(json.loads(good(body).steps[0][1])["choices"][0]["message"]["content"])
        if "error" in found:
            found["error"] = {"code": found["error"]["code"], "message": "That will not do."}
        return text(found)

    roles = stage.roles(reply, Role.TOOL_WORLD, repairs=0)
    trajectory, _ = play_roles(task, roles, task.number)
    assert "That will not do." in "".join(m.content for m in trajectory.messages)
    assert not drift(trajectory)
    assert judge_roles(trajectory, roles, task.number)[0].reason == "replay"


def test_a_reply_in_another_order_is_shown_as_it_is(stage: Stage) -> None:
    task = task_of(1)
    good = GoodEndpoint(task)

    def reply(body: dict[str, Any]) -> Answer:
        found = json.loads(json.loads(good(body).steps[0][1])["choices"][0]["message"]["content"])
        return text({"result": dict(reversed(found["result"].items()))})

    trajectory, outcomes = play_roles(task, stage.roles(reply, Role.TOOL_WORLD), 1)
    assert outcomes.of(Role.TOOL_WORLD).accepted > 0
    assert judge(trajectory).passes


def test_planned_failures_are_shown_as_they_are(stage: Stage) -> None:
    task = of_class(TaskClass.TRANSIENT)
    roles = stage.roles(GoodEndpoint(task), Role.TOOL_WORLD)
    trajectory, outcomes = play_roles(task, roles, task.number)
    planned = sum(not event.reply.is_ok for event in trajectory.events)
    assert planned > 0
    assert outcomes.of(Role.TOOL_WORLD).asked == len(trajectory.events) - planned
    assert not drift(trajectory)


def test_a_reply_that_no_tool_gives_is_not_shown(stage: Stage) -> None:
    wrong: tuple[Any, ...] = (
        {"result": {"id": 3}},
        {"error": {"code": "OUT_OF_LUCK", "message": ""}},
        {"result": {}, "error": {"code": Code.NOT_FOUND, "message": ""}},
        {"result": None},
    )
    for found in wrong:
        content = found
        roles = stage.roles(lambda body, content=content: text(content), Role.TOOL_WORLD, repairs=0)
        trajectory, outcomes = play_roles(task_of(1), roles, 1)
        counts = outcomes.of(Role.TOOL_WORLD)
        assert counts.kept == {"not_of_schema": counts.asked}
        assert not drift(trajectory)
        assert judge(trajectory).passes


def test_a_world_of_nonsense_is_rejected(stage: Stage) -> None:
    """But where nothing is called, or what is so is an error, too."""
    error = text({"error": {"code": "NOT_FOUND", "message": "Nothing."}})
    names = set[str]()
    for number in range(40):
        roles = stage.roles(lambda body: error, Role.TOOL_WORLD)
        trajectory, _ = play_roles(task_of(number), roles, number)
        verdict, _ = judge_roles(trajectory, roles, number)
        assert verdict.passes is not bool(drift(trajectory))
        names.add(verdict.reason)
    assert names == {"", "replay"}
