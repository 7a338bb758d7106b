"""The loop on the toy tasks: what it writes, how it stops, and that resuming changes nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from toys import Gan, Regression

from selenite.clock import ManualClock
from selenite.errors import CheckpointError, NonFiniteError, StorageError
from selenite.train.lock import exclusive
from selenite.train.loop import LoopConfig, Outcome, Status, run
from selenite.train.progress import LogLines
from selenite.train.task import Task


def _train(task: Task, out_dir: Path, steps: int, **settings: object) -> Outcome:  # type: ignore[type-arg]
    config = LoopConfig(out_dir=out_dir, tensorboard=False, **settings)  # type: ignore[arg-type]
    clock = ManualClock()
    return run(task, steps, config, clock, LogLines(clock))


def _rows(out_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]


def _losses(out_dir: Path) -> list[tuple[object, object]]:
    return [(row["step"], row.get("loss", row.get("generator.loss"))) for row in _rows(out_dir)]


def _assert_equal_modules(a: Task, b: Task) -> None:  # type: ignore[type-arg]
    for name, module in a.modules.items():
        other = b.modules[name].state_dict()
        for key, value in module.state_dict().items():
            assert torch.equal(value, other[key]), f"{name}.{key}"


def test_rows_evaluations_samples_and_totals(tmp_path: Path) -> None:
    outcome = _train(Regression(), tmp_path, 5, eval_every=2, sample_every=3, checkpoint_every=2)
    rows = _rows(tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["step"] for row in rows if "val_loss" in row] == [0, 2, 4, 5]
    assert [row["step"] for row in rows if "sample.1.text" in row] == [3, 5]
    assert rows[3]["sample.1.text"] == "24"
    assert outcome.status is Status.FINISHED
    assert outcome.exit_code == 0
    assert outcome.totals.tokens == 5 * 8
    assert outcome.checkpoint == tmp_path / "checkpoints" / "step_00000005"


@pytest.mark.parametrize("make", [Regression, Gan])
@pytest.mark.parametrize("cut", [1, 4])
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(
    tmp_path: Path, make: type[Regression] | type[Gan], cut: int
) -> None:
    whole = make()
    _train(whole, tmp_path / "whole", 9)
    _train(make(), tmp_path / "parts", cut)
    resumed = make(seed=7)  # other weights and another generator state: all must be restored
    outcome = _train(resumed, tmp_path / "parts", 9)
    assert outcome.status is Status.FINISHED
    _assert_equal_modules(whole, resumed)
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("checkpoint_every", [0, 1])
def test_signal_finishes_the_step_saves_and_stops(
    tmp_path: Path, number: signal.Signals, checkpoint_every: int
) -> None:
    whole = Regression()
    _train(whole, tmp_path / "whole", 6)
    task = Regression()
    task.on_batch = lambda rows: os.kill(os.getpid(), number) if rows == 8 * 3 else None
    before = signal.getsignal(number)
    outcome = _train(task, tmp_path / "parts", 6, checkpoint_every=checkpoint_every)
    assert outcome.status is Status.STOPPED
    assert outcome.exit_code == 128 + number
    assert outcome.step == 4, "the step in which the signal came is finished"
    assert signal.getsignal(number) is before
    resumed = Regression(seed=7)
    assert _train(resumed, tmp_path / "parts", 6).status is Status.FINISHED
    _assert_equal_modules(whole, resumed)


def test_finished_run_is_left_alone(tmp_path: Path) -> None:
    first = _train(Regression(), tmp_path, 3)
    written = (tmp_path / "metrics.jsonl").read_bytes()
    again = _train(Regression(), tmp_path, 3)
    assert again.status is Status.ALREADY_FINISHED
    assert (again.step, again.totals, again.checkpoint) == (3, first.totals, first.checkpoint)
    assert (tmp_path / "metrics.jsonl").read_bytes() == written


def test_nan_names_the_last_checkpoint_which_is_intact(tmp_path: Path) -> None:
    task = Regression()

    def poison(rows_seen: int) -> None:
        if rows_seen == 8 * 5:
            with torch.no_grad():
                task.net[3].weight.fill_(float("nan"))

    task.on_batch = poison
    with pytest.raises(NonFiniteError, match=r"step 6\b.*the last checkpoint is .*step_00000004"):
        _train(task, tmp_path, 9, checkpoint_every=2)
    resumed = Regression(seed=7)
    _train(resumed, tmp_path, 9)
    whole = Regression()
    _train(whole, tmp_path / "whole", 9)
    _assert_equal_modules(whole, resumed)


def test_two_runs_cannot_share_a_directory(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(StorageError, match=r"another process.*out_dir"):
        _train(Regression(), tmp_path, 2)
    assert _train(Regression(), tmp_path, 2).status is Status.FINISHED


def test_resume_none_refuses_a_used_directory(tmp_path: Path) -> None:
    _train(Regression(), tmp_path, 2, resume="none")
    with pytest.raises(CheckpointError, match=r"train\.resume=none.*step_00000002"):
        _train(Regression(), tmp_path, 4, resume="none")


@pytest.mark.parametrize("is_absolute", [True, False])
def test_a_relative_directory_keeps_the_checkpoint_that_it_resumes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    out_dir = Path("runs/one")
    _train(Regression(), out_dir, 6, checkpoint_every=2, keep_last=3)
    older = out_dir / "checkpoints" / "step_00000004"
    _train(Regression(seed=7), out_dir, 5, resume=str(older.resolve() if is_absolute else older))
    assert sorted(p.name for p in older.parent.iterdir()) == [
        "step_00000004",
        "step_00000005",
        "step_00000006.superseded",
    ]


def test_a_finished_checkpoint_of_another_directory_leaves_nothing_to_train(tmp_path: Path) -> None:
    outcome = _train(Regression(), tmp_path / "a", 3)
    with pytest.raises(CheckpointError, match=r"3 steps done.*is to have 3.*train\.steps"):
        _train(Regression(), tmp_path / "b", 3, resume=str(outcome.checkpoint))


def test_going_back_to_an_older_checkpoint_sets_the_newer_aside(tmp_path: Path) -> None:
    _train(Regression(), tmp_path, 6, checkpoint_every=2, keep_last=3)
    checkpoints = tmp_path / "checkpoints"
    resumed = Regression(seed=7)
    _train(resumed, tmp_path, 3, resume=str(checkpoints / "step_00000002"))
    assert sorted(p.name for p in checkpoints.iterdir()) == [
        "step_00000002",
        "step_00000003",
        "step_00000004.superseded",
        "step_00000006.superseded",
    ]
    assert [row["step"] for row in _rows(tmp_path)] == [0, 1, 2, 3]
    whole = Regression()
    _train(whole, tmp_path / "whole", 3)
    _assert_equal_modules(whole, resumed)
