"""Lengths: what is asked for, and what is earned by it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from selenite.rl.budget import BudgetConfig, Budgets
from selenite.rl.rollout import Rollout, Status


def rollout(length: int, reward: float, status: Status = Status.DONE, name: str = "a") -> Rollout:
    ids_T = np.arange(length + 3)
    return Rollout(
        environment=name,
        task=0,
        number=0,
        token_ids_T=ids_T,
        is_sampled_T=ids_T >= 3,
        engine_logprobs_T=np.zeros(length + 3, dtype=np.float32),
        temperature=1.0,
        weight_version_T=np.zeros(length + 3, dtype=np.int64),
        status=status,
        reason="",
        score=None,
        reward=reward,
        messages=(),
        seconds={},
    )


def rewards(groups: Sequence[Sequence[Rollout]]) -> list[list[float]]:
    return [[one.reward for one in group] for group in groups]


def test_without_a_rule_nothing_changes() -> None:
    budgets, group = Budgets(None), [rollout(5, 1.0), rollout(9, 0.0)]
    budgets.learn([group])
    assert budgets.limits == {}
    assert budgets.rewards([group], 0) == [group]


def test_a_limit_is_set_once_and_of_right_attempts_alone() -> None:
    budgets = Budgets(BudgetConfig(rule="limit", right=4, quantile=1.0, factor=2.0))
    wrong = [rollout(900, 0.0), rollout(900, 1.0, Status.TRUNCATED), rollout(800, 0.4)]
    budgets.learn([wrong, [rollout(n, 1.0) for n in (40, 200, 60)]])
    assert budgets.limits == {}  # three are not four
    other = Budgets(BudgetConfig(rule="limit", right=4, quantile=1.0, factor=2.0))
    other.load_state_dict(json.loads(json.dumps(budgets.state_dict())))
    for known in (budgets, other):
        known.learn([[rollout(50, 0.9), rollout(7000, 1.0)]])  # the second comes too late
        assert known.limits == {"a": 400}
    assert budgets.rewards([wrong], 0) == [wrong]


def test_a_limit_leaves_room_above_short_answers() -> None:
    budgets = Budgets(BudgetConfig(rule="limit", right=2))
    budgets.learn([[rollout(4, 1.0), rollout(4, 1.0)], [rollout(9, 1.0, name="b")] * 2])
    assert budgets.limits == {"a": 68, "b": 73}


def test_toggle_holds_lengths_in_every_other_phase_of_solved_tasks() -> None:
    config = BudgetConfig(rule="toggle", right=4, quantile=0.5, every=2, solved=0.6)
    budgets = Budgets(config)
    budgets.learn([[rollout(n, 1.0) for n in (10, 20, 20, 30)]])
    solved = [rollout(20, 1.0), rollout(21, 1.0), rollout(500, 0.9), rollout(500, 0.0)]
    hard = [rollout(500, 1.0), rollout(5, 0.0)]
    cut = [*solved[:3], rollout(300, -0.1, Status.TRUNCATED)]
    for iteration in range(8):
        found = rewards(budgets.rewards([solved, hard, cut], iteration))
        if iteration % 4 < 2:
            assert found == [[1.0, 0.0, 0.0, 0.0], [1.0, 0.0], [1.0, 0.0, 0.0, -0.1]]
        else:
            assert found == rewards([solved, hard, cut])
    unknown = [rollout(500, 1.0, name="b"), rollout(5, 1.0, name="b")]
    assert rewards(budgets.rewards([unknown], 0)) == [[1.0, 1.0]]


def test_short_right_attempts_earn_more_within_a_group() -> None:
    budgets = Budgets(BudgetConfig(rule="group", weight=0.5))
    group = [
        rollout(10, 1.0),
        rollout(20, 1.0),
        rollout(30, 1.0),
        rollout(10, 0.0),
        rollout(30, 0.0),
        rollout(90, 0.0, Status.ENVIRONMENT),
    ]
    (found,) = rewards(budgets.rewards([group], 0))
    assert found == pytest.approx([1.25, 1.0, 0.75, 0.0, -0.25, 0.0])
    alike = [rollout(10, 1.0), rollout(10, 0.0)]
    assert budgets.rewards([alike], 0) == [alike]
