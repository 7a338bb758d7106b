"""Doing nothing and the solution, by tau2's own evaluators, in every mode without a model."""

from __future__ import annotations

import pytest

from selenite.errors import DataError
from selenite.eval.question import Answer, Call
from selenite.eval.scoreboard import bounds as suite_bounds
from selenite.eval.tau2.episode import OF_TAU2, Episode
from selenite.eval.tau2.next_action import next_action
from selenite.eval.tau2.process import running
from selenite.eval.tau2.run import GOLD, NULL, SLOTS, TICKET, bounds, lift, summary, unjudged
from tests.eval.tau2.conftest import OpenTable

# tasks, solved by the solution, solved by doing nothing
KNOWN = {
    ("mock", "base"): (9, 8, 1),
    ("telecom", "small"): (20, 20, 0),
    ("telecom", "base"): (114, 114, 0),
    ("retail", "test"): (40, 40, 2),
    ("retail", "base"): (114, 114, 7),
    ("airline", "test"): (20, 20, 6),
    ("airline", "base"): (50, 50, 19),
}
UNJUDGED = "create_task_1_with_env_assertions"  # its assertion raises where the task was not made


def check(open_table: OpenTable, name: str, split: str, mode: str) -> None:
    found = bounds(open_table(name, split, mode))
    tasks, gold, null = KNOWN[name, split]
    assert [len(own) for own in found.values()] == [tasks, tasks]
    assert sum(episode.passes for episode in found[GOLD]) == gold
    assert sum(episode.passes for episode in found[NULL]) == null
    assert unjudged(found) == ((UNJUDGED,) if name == "mock" else ())


@pytest.mark.parametrize("mode", [TICKET, SLOTS])
@pytest.mark.parametrize(("name", "split"), [("mock", "base"), ("telecom", "small")])
def test_floor_and_ceiling(open_table: OpenTable, name: str, split: str, mode: str) -> None:
    check(open_table, name, split, mode)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "mode"),
    [
        ("retail", "base", SLOTS),
        ("airline", "base", SLOTS),
        ("telecom", "base", SLOTS),
        ("retail", "test", TICKET),
        ("airline", "test", TICKET),
        ("telecom", "base", TICKET),
    ],
)
def test_floors_and_ceilings_of_whole_domains(
    open_table: OpenTable, name: str, split: str, mode: str
) -> None:
    check(open_table, name, split, mode)


@pytest.mark.parametrize(
    ("name", "split", "questions"), [("mock", "base", 7), ("telecom", "small", 27)]
)
def test_next_actions(open_table: OpenTable, name: str, split: str, questions: int) -> None:
    table = open_table(name, split, TICKET)
    suite = next_action(table.process, table.domain)
    assert len(suite.questions) == questions
    shares = {result.agent: result.scores[name].share for result in suite_bounds(suite)}
    assert shares["gold"] == 1.0
    assert shares["null"] == 0.0


def test_a_next_action_is_compared_by_type(open_table: OpenTable) -> None:
    table = open_table("mock", "base", TICKET)
    suite = next_action(table.process, table.domain)
    id = suite.questions[0].id
    due = suite.gold[id].calls[0]
    assert due.arguments is not None
    right = [due]
    wrong = [
        Call("get_users", due.arguments),
        Call(due.name, {**due.arguments, "title": 3}),
        Call(due.name, {**due.arguments, "more": ""}),
        Call(due.name, {}),
        Call(due.name, None),
    ]
    for call, is_right in [(c, True) for c in right] + [(c, False) for c in wrong]:
        assert suite.judge({id: Answer(calls=(call,))})[id].is_right is is_right
    assert suite.judge({id: Answer(error="away")}) == {}
    assert suite.judge({id: Answer(too_long=True)})[id].reason.startswith("the prompt")
    spoilt = suite.judge({id: Answer(calls=(due,), malformed=1)})[id]
    assert (spoilt.is_right, spoilt.reason) == (False, "1 malformed calls")


def test_history_of_next_actions_is_the_solutions(open_table: OpenTable) -> None:
    table = open_table("telecom", "small", TICKET)
    suite = next_action(table.process, table.domain)
    for question in suite.questions:
        calls = [call for message in question.messages for call in message.tool_calls]
        results = [message for message in question.messages if message.role == "tool"]
        assert [call.id for call in calls] == [result.tool_call_id for result in results]
        assert not any(result.content.startswith("Error") for result in results)
        assert len(calls) == int(question.id.rpartition("/")[2])


def test_a_split_that_is_not_there_is_refused(open_table: OpenTable) -> None:
    open_table("mock", "base", TICKET)  # or the test is skipped
    with (
        pytest.raises(DataError, match="split 'nope' of mock: must be one of base"),
        running("mock", "nope"),
    ):
        pass


def test_what_is_unjudged_is_in_no_score(open_table: OpenTable) -> None:
    table = open_table("mock", "base", TICKET)
    found = bounds(table)
    failed = [episode for episode in found[NULL] if episode.error]
    assert [episode.task for episode in failed] == [UNJUDGED]
    assert failed[0].error.startswith("tau2: ValueError")
    assert not failed[0].passes
    assert summary(found[NULL], 1)["tasks"] == 8
    assert summary(found[NULL], 1)["errors"] == 1
    kept = table.without(unjudged(found))
    assert len(kept.domain.tasks) == 8


@pytest.mark.parametrize("error", ["episode 3: silent for 120 s", "episode 3: its process ended"])
@pytest.mark.parametrize("agent", [NULL, GOLD])
def test_an_accident_in_a_bound_leaves_out_no_task(agent: str, error: str) -> None:
    found = {NULL: [Episode("a", 0), Episode("b", 0)], GOLD: [Episode("a", 0), Episode("b", 0)]}
    found[agent][1] = Episode("b", 0, error=f"{OF_TAU2}ValueError: no such task")
    assert unjudged(found) == ("b",)
    found[agent][0] = Episode("a", 0, error=error)
    with pytest.raises(DataError, match=f"failed in the bounds \\(a: {error}"):
        unjudged(found)


def test_lift() -> None:
    assert lift(0.5, 0.0) == 0.5
    assert lift(0.05, 0.05) == 0.0
    assert lift(1.0, 0.38) == 1.0
    assert lift(0.15, 0.38) < 0
