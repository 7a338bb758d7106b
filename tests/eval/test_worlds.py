"""Our worlds as a suite: the axes, the bounds, and a model that acts through a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from selenite.agent.episodes.episode import play_script
from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.ontology.acceptance import admit, examine
from selenite.agent.synthesis.splits import split_of
from selenite.agent.tasks.author import make_task
from selenite.agent.tasks.task import Task, TaskClass
from selenite.errors import DataError
from selenite.eval.measure import Target
from selenite.eval.measure_worlds import bounds, measure_worlds, table
from selenite.eval.worlds import AXES, Case, Episode, cases, summary
from tests.fixtures.server import free_port, make_model


@pytest.fixture(scope="module")
def known() -> list[Case]:
    return cases(3, tried=40)


def test_tasks_are_of_their_axis(known: list[Case]) -> None:
    assert [case.axis for case in known] == [axis for axis in AXES for _ in range(3)]
    for case in known:
        script = play_script(case.task)
        assert script is not None
        split = split_of(script)
        is_own = split == case.axis
        assert is_own or (case.axis == "in-domain" and split in ("train", "sample", "persona"))
        assert case.task.number >= 1_000_000
    assert len({case.task.id for case in known}) == len(known)


def test_in_the_same_records_no_calls_are_asked_for_that_training_has() -> None:
    """Where a domain has one set of records, two tasks can be the same in other words."""
    domains = admit(7, (examine(7, 0),)).numbers
    clean = [TaskClass.CLEAN]
    trained = [make_task(7, n, domains, 1000, classes=clean, states=1) for n in range(200)]
    scripts = [play_script(task) for task in trained]
    asked = cases(12, ["in-domain"], tried=1, classes=clean, states=1)
    assert {task.setting.world for task in (*trained, *(case.task for case in asked))} == {0}

    def calls(task: Task) -> str:
        return repr([(step.tool, step.arguments) for step in task.steps])

    known = {calls(task) for task, script in zip(trained, scripts, strict=True) if of_train(script)}
    assert 50 < len(known) < len(trained)  # some are told twice
    assert not known & {calls(case.task) for case in asked}


def of_train(script: Trajectory | None) -> bool:
    assert script is not None
    return split_of(script) == "train"


def test_the_oracle_passes_all_and_nobody_else_does(known: list[Case]) -> None:
    found = bounds(known)
    assert list(found) == ["null", "words", "oracle"]
    for axis in AXES:
        assert found["oracle"][axis]["pass^k"] == [1.0]
        assert found["oracle"][axis]["calls_over_due"] >= 1.0
        assert found["null"][axis]["pass^k"][0] <= 0.5
    assert sum(found["null"][axis]["pass^k"][0] for axis in AXES) < 1
    assert table(found, 1).row_count == len(AXES)


@pytest.mark.slow
def test_a_model_acts_and_its_answers_are_kept(known: list[Case], tmp_path: Path) -> None:
    """Random weights pass nothing; a second run asks nobody."""
    model, few = make_model(tmp_path), known[::3]
    target = Target(model, None)
    options = (tmp_path / "out", 2, 0.7, True, 4, 16)
    found, episodes = measure_worlds(few, target, *options)
    assert len(episodes) == 2 * len(few)
    assert not any(episode.error for episode in episodes)
    assert all(found[axis]["tasks"] == 1 for axis in AXES)
    assert all(len(found[axis]["pass^k"]) == 2 for axis in AXES)
    files = sorted((tmp_path / "out").rglob("*"))
    again, _ = measure_worlds(few, target, *options)
    assert again == found
    assert sorted((tmp_path / "out").rglob("*")) == files


@pytest.mark.slow
def test_a_server_that_is_away_gives_no_score(known: list[Case], tmp_path: Path) -> None:
    target = Target(None, f"http://127.0.0.1:{free_port()}", model="tiny")
    with pytest.raises(DataError, match="the pipeline failed in"):
        measure_worlds(known[:2], target, tmp_path, 1, 0.0, True, 2, 16)


def test_trials_of_a_task_count_as_one_task() -> None:
    def episode(task: str, faults: tuple[str, ...], error: str = "") -> Episode:
        return Episode(task, "domain", "clean", faults, 2, 1, 20 if task == "a" else 50, error)

    found = summary(
        [
            *(episode("a", ()), episode("a", ())),
            *(episode("b", ()), episode("b", ("state",))),
            *(episode("c", ("state", "said")), episode("c", ("said",))),
            *(episode("d", ()), episode("d", (), "timeout")),  # no verdict: the task is left out
        ],
        trials=2,
    )["domain"]
    assert found["tasks"] == 3
    assert found["pass^k"] == pytest.approx([0.5, 1 / 3])
    assert found["errors"] == 1
    assert found["faults"] == {"state": 2, "said": 2}
    assert found["calls_over_due"] == 2.0
    assert found["classes"] == {"clean": [4, 7]}
    assert found["by calls due"] == {"01": [4, 7]}
    assert found["by tools"] == {"24": [2, 2], "over 48": [2, 5]}
