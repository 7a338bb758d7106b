"""Which task comes when, and environments of one's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from selenite.errors import ConfigError
from selenite.rl.gym.config import EnvironmentPart
from selenite.rl.gym.environment import Environment
from selenite.rl.gym.logic.puzzles import logic_questions
from selenite.rl.gym.math_problems import math_questions
from selenite.rl.tasks import TaskStream

OWN = """
from selenite.rl.gym.environment import Budget, Check
from selenite.rl.gym.questions import Question, Questions

def make(word="fox", name="echo"):
    def judge(text):
        return Check("answer", float(text == word))
    return Questions(name, Budget(tokens=20), lambda number: Question(f"Say {word}.", judge))

def nothing():
    return object()
"""


def part(**values: object) -> Environment:
    adapter: TypeAdapter[EnvironmentPart] = TypeAdapter(EnvironmentPart)
    return adapter.validate_python(values).open()


def test_shares_are_kept_as_evenly_as_numbers_allow() -> None:
    stream = TaskStream([math_questions(1), logic_questions(1)], [3.0, 1.0])
    names = [stream.take().environment.name for _ in range(40)]
    assert names.count("math") == 30
    for first in range(0, 40, 4):
        assert names[first : first + 4].count("logic") == 1


def test_a_stream_goes_on_where_it_was() -> None:
    def make() -> TaskStream:
        return TaskStream([math_questions(1), logic_questions(1)], [2.0, 3.0])

    stream, other = make(), make()
    whole = [stream.take() for _ in range(23)]
    assert [other.take().number for _ in range(9)] == [task.number for task in whole[:9]]
    state = json.loads(json.dumps(other.state_dict()))
    other = make()
    other.load_state_dict(state)
    rest = [other.take() for _ in range(14)]
    assert [(t.environment.name, t.number) for t in whole[9:]] == [
        (t.environment.name, t.number) for t in rest
    ]
    assert len({(t.environment.name, t.number) for t in whole}) == 23


def test_tasks_of_a_pool_come_again_by_how_hard_they_are() -> None:
    rates = {0: 0.0, 1: 1.0, 2: 0.5, 3: 0.75, 4: 0.25}

    def make() -> TaskStream:
        return TaskStream([math_questions(1)], [1.0], pool=len(rates), seed=3)

    stream = make()
    first = [stream.take() for _ in range(5)]
    assert [task.number for task in first] == list(rates)
    assert stream.take().number == 0  # all are in flight: nothing is known
    for task in first:
        stream.tell(task, rates[task.number])
    taken = [stream.take() for _ in range(2000)]
    weights = {0: 0.05, 1: 0.05, 2: 0.5, 3: 0.25, 4: 0.75}
    for number, weight in weights.items():
        share = sum(task.number == number for task in taken) / len(taken)
        expected = weight / sum(weights.values())
        assert abs(share - expected) < 4 * (expected * (1 - expected) / len(taken)) ** 0.5
    # Every visit has a number of its own, and with it seeds of its own.
    visits = [task.visit for task in taken if task.number == 4]
    assert visits == list(range(1, len(visits) + 1))
    other = make()
    other.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    for _ in range(50):
        mine, its = stream.take(), other.take()
        assert (mine.number, mine.visit) == (its.number, its.visit)


def test_two_of_a_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="a name of its own"):
        TaskStream([math_questions(1), math_questions(2)], [1, 1])


def test_an_environment_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_environment.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = part(kind="python", factory="own_environment:make", settings={"word": "dog"})
    assert own.name == "echo"
    assert "Say dog." in own.begin(0).opening[0].content
    for factory, message in (
        ("own_environment:missing", "has no attribute"),
        ("no_such_module:make", "No module named"),
        ("own_environment:nothing", "has no 'name'"),
    ):
        with pytest.raises(ConfigError, match=message):
            part(kind="python", factory=factory)
    with pytest.raises(ValidationError):
        part(kind="python", factory="os.system('ls')")
    sys.modules.pop("own_environment")


def test_shipped_environments_open() -> None:
    assert part(kind="math", level=2).name == "math"
    assert part(kind="logic", puzzles=["sudoku"]).begin(0).opening
    worlds = part(kind="worlds", domains=12, unused_tools=1, tokens=99)
    assert (worlds.name, worlds.budget.tokens, worlds.budget.turns) == ("worlds", 99, 16)
