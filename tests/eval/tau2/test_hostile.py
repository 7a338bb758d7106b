"""Calls and replies that mean harm, or are none: they are scored, and run nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from selenite.eval.tau2.agents import GoldAgent
from selenite.eval.tau2.episode import EMPTY, MALFORMED, NO_CALL, Episode, play
from selenite.eval.tau2.run import TICKET, Table
from selenite.eval.tau2.task import Turn
from selenite.types import Message, ToolCall
from tests.eval.tau2.conftest import OpenTable

NUMBERS = iter(range(1_000_000, 2_000_000))  # of episodes that no other test has


class Acting:
    """Makes these turns, then says that it is done; keeps what it was told."""

    def __init__(self, *turns: Turn) -> None:
        self._turns = list(turns)
        self.heard: list[Message] = []

    def act(self, messages: Sequence[Message]) -> Turn:
        self.heard = list(messages)
        return self._turns.pop(0) if self._turns else Turn("I am done.")


def calls(*named: tuple[str, Any]) -> Turn:
    """One turn; arguments that are text are sent as they are."""
    return Turn(
        calls=tuple(
            ToolCall(name, given if isinstance(given, str) else json.dumps(given), f"call_{i}")
            for i, (name, given) in enumerate(named)
        )
    )


def played(table: Table, agent: Acting, task: int = 0) -> Episode:
    one = table.domain.tasks[task]
    return play(table.process, next(NUMBERS), one, 0, agent, table.user(one))


@pytest.fixture
def table(open_table: OpenTable) -> Table:
    return open_table("retail", "test", TICKET)


def nested(depth: int) -> str:
    return '{"expression": ' * depth + "1" + "}" * depth


def test_hostile_calls_are_errors_of_their_tools(table: Table, tmp_path: Path) -> None:
    made = tmp_path / "made"
    code = f"__import__('os').system('touch {made}')"
    hostile = [
        ("calculate", {"expression": code}),
        ("calculate", {"expression": "9**9**9**9"}),
        ("calculate", {"expression": "(" * 5000}),
        (code, {}),
        ("__init__", {"db": None}),
        ("use_tool", {"tool_name": "cancel_pending_order"}),
        ("calculate", {"requestor": "user", "expression": "1"}),
        ("calculate", {"expression": "1\ud800"}),
        ("get_user_details", {"user_id": "../../../etc/passwd"}),
    ]
    agent = Acting(calls(*hostile))
    episode = played(table, agent)
    assert not episode.error, episode.error
    assert not episode.fault
    assert episode.calls == len(hostile)
    results = [message.content for message in agent.heard if message.role == "tool"]
    assert len(results) == len(hostile)
    assert all(result.startswith("Error") for result in results), results
    assert "does not end" in results[1]
    assert not made.exists()
    task = table.domain.tasks[0]
    after = play(
        table.process, next(NUMBERS), task, 0, GoldAgent(task, False, False), table.user(task)
    )
    assert after.passes


@pytest.mark.parametrize("arguments", [nested(300), '{"expression": NaN}', '{"x": 1e999}'])
def test_odd_values_are_arguments_like_others(table: Table, arguments: str) -> None:
    episode = played(table, Acting(calls(("calculate", arguments))))
    assert not episode.error, episode.error
    assert episode.ended == "user_stop"


@pytest.mark.parametrize(
    ("turn", "fault"),
    [
        (calls(("calculate", "{")), MALFORMED),
        (calls(("calculate", "[1]")), MALFORMED),
        (calls(("calculate", '{"x": ' * 100_000)), MALFORMED),
        (calls(("calculate", '{"x": ' + "9" * 5000 + "}")), MALFORMED),
        (Turn("  \n"), EMPTY),
    ],
)
def test_what_is_no_turn_ends_the_episode(table: Table, turn: Turn, fault: str) -> None:
    episode = played(table, Acting(turn))
    assert (episode.fault, episode.error, episode.passes) == (fault, "", False)


def test_an_agent_alone_must_call(open_table: OpenTable) -> None:
    table = open_table("telecom", "small", TICKET)
    assert played(table, Acting(Turn("Hello."))).fault == NO_CALL


def test_too_many_errors_end_an_episode_by_tau2s_own_rule(table: Table) -> None:
    turns = [calls(("nothing", {})) for _ in range(12)]
    episode = played(table, Acting(*turns))
    assert (episode.ended, episode.turns, episode.passes) == ("too_many_errors", 10, False)


def test_an_exception_of_tau2_is_no_score(open_table: OpenTable) -> None:
    table = open_table("mock", "base", TICKET)
    ids = [task.id for task in table.domain.tasks]
    episode = played(table, Acting(), ids.index("create_task_1_with_env_assertions"))
    assert episode.error.startswith("tau2: ValueError")
    assert not episode.is_judged


def test_an_error_of_the_pipeline_is_no_score(open_table: OpenTable) -> None:
    episode = played(open_table("mock", "base", TICKET), Acting(Turn(error="connection: gone")))
    assert (episode.error, episode.is_judged) == ("connection: gone", False)
