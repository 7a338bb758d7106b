"""Rollouts on disk are the rollouts, to the bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from selenite.errors import DataError
from selenite.rl import journal
from selenite.rl.gym.environment import Check, Score
from selenite.rl.rollout import Rollout, Status
from selenite.types import Message, ToolCall
from tests.rl.test_batch import make_groups


def same(a: Rollout, b: Rollout) -> bool:
    for field in dataclasses.fields(Rollout):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, field.name
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right, field.name
    return True


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    groups = make_groups()
    call = ToolCall("say", '{"word": "Größe\\u0000"}', "functions.say:0")
    groups[0][0] = dataclasses.replace(
        groups[0][0],
        messages=(
            Message("system", "You are a clerk."),
            Message("user", "½ 🙂\n\u2028\x85\r", name="Ada"),
            Message("assistant", "", tool_calls=(call,), reasoning="Hm."),
            Message("tool", "{}", tool_call_id=call.id),
        ),
        score=Score((Check("state", 0.5, "a record is missing"), Check("said", 1.0))),
        seconds={"generating": 0.25},
    )
    groups[1][2] = dataclasses.replace(
        groups[1][2], status=Status.ENVIRONMENT, score=None, reason="its disk is full"
    )
    journal.write(tmp_path, 7, groups)
    journal.write(tmp_path, 12, groups[:1])
    first, second = journal.steps(tmp_path)
    assert (first.name, second.name) == ("step_00000007.jsonl", "step_00000012.jsonl")
    found = journal.read(first)
    assert [len(group) for group in found] == [4, 4, 4]
    for own, back in zip(groups, found, strict=True):
        assert all(same(a, b) for a, b in zip(own, back, strict=True))
    assert len(journal.read(second)) == 1


def test_anything_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rollouts are there"):
        journal.Replay(tmp_path)
    for text in ('{"group": 0}\n', "no json\n", "[]\n", "null\n"):
        path = tmp_path / "step_00000000.jsonl"
        path.write_text(text)
        with pytest.raises(DataError, match="not rollouts of a run"):
            journal.read(path)
