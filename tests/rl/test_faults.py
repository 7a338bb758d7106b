"""A run that is killed, whose disk is full, whose weights are no numbers: what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from selenite.clock import SystemClock
from selenite.config import dump
from selenite.errors import NonFiniteError, StorageError
from selenite.rl import journal
from selenite.rl.run import open_task, rl
from selenite.train.step import train_step
from tests.fixtures.server import make_model
from tests.rl.test_run import PEAK, config_of

STEPS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    make_model(root)
    return root


def lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def killed_again_and_again(config: Path, run: Path, rng: Random) -> int:
    """Runs to the end, killed a random while after each step that it got further; the kills."""
    kills = 0
    while True:
        before = lines(run)
        process = subprocess.Popen(
            [sys.executable, "-m", "selenite", "rl", "run", str(config)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None and (lines(run) <= before or kills > STEPS):
                time.sleep(0.02)
            if process.poll() is None:
                time.sleep(rng.random() * 0.5)
                process.send_signal(signal.SIGKILL)
                kills += 1
            said = process.communicate(timeout=300)[1]
        finally:
            process.kill()
        if process.returncode == 0:
            return kills
        assert process.returncode == -signal.SIGKILL, said.decode()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_is_the_run(root: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"train__steps": STEPS, "train__checkpoint_every": 1}
    whole = config_of(root, tmp_path / "whole", **changes)
    rl(whole, SystemClock(), PEAK)
    config = tmp_path / "config.toml"
    dump(config_of(root, tmp_path / "killed", **changes), config)
    kills = killed_again_and_again(config, tmp_path / "killed", Random(0))
    assert kills >= 1
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert models[0] == models[1]
    # No rollout is lost or doubled: the same files, with the same attempts.
    files = [journal.steps(tmp_path / name) for name in ("whole", "killed")]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    for pair in zip(*files, strict=True):
        attempts = [
            [
                (attempt.task, attempt.number, attempt.token_ids_T.tolist(), attempt.reward)
                for group in journal.read(file)
                for attempt in group
            ]
            for file in pair
        ]
        assert attempts[0] == attempts[1]


def test_a_disk_that_takes_no_rollouts_is_told(root: Path, tmp_path: Path) -> None:
    config = config_of(root, tmp_path / "full")
    with ExitStack() as stack:
        task = open_task(config, "cpu", torch.float32, SystemClock(), stack)
        (tmp_path / "full").mkdir(exist_ok=True)
        (tmp_path / "full" / journal.FOLDER).write_text("a file where a folder should be")
        with pytest.raises(StorageError, match="rollouts"):
            task.next_batch()


def test_weights_that_are_no_numbers_end_the_run_before_they_serve(
    root: Path, tmp_path: Path
) -> None:
    config = config_of(root, tmp_path / "nan")
    with ExitStack() as stack:
        task = open_task(config, "cpu", torch.float32, SystemClock(), stack)
        train_step(task, 0)
        version = task.state_dict()["version"]
        with torch.no_grad():
            task.model.norm.weight[0] = float("nan")
        with pytest.raises(NonFiniteError):
            train_step(task, 1)
        assert task.state_dict()["version"] == version  # what served serves
