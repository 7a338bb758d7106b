"""Whole runs whose engines are elsewhere, and lose one in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from selenite.clock import SystemClock
from selenite.errors import ConfigError
from selenite.rl.remote.engine import RemoteEngine
from selenite.rl.remote.process import ProcessChannel
from selenite.rl.run import open_task
from selenite.train.step import train_step
from tests.fixtures.server import make_model
from tests.rl.test_run import config_of


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("remote")
    make_model(root)
    return root


def kill_in_the_middle(engine: RemoteEngine, killed: threading.Event) -> None:
    """Kills its process once it has requests."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not killed.is_set():
        if any(len(known.request.completion) > 3 for known in list(engine._open.values())):
            assert isinstance(engine._channel, ProcessChannel)
            os.kill(engine._channel.process_id, signal.SIGKILL)
            killed.set()
        time.sleep(0.001)


@pytest.mark.slow
def test_a_run_goes_on_when_an_engine_is_killed_within_a_group(root: Path, tmp_path: Path) -> None:
    environments = [{"kind": "math", "tokens": 200}]
    config = config_of(root, tmp_path / "run", rollouts__engines=2, environments=environments)
    with ExitStack() as stack:
        task = open_task(config, "cpu", torch.float32, SystemClock(), stack)
        engine = task._producer._actor._engines[1]  # type: ignore[attr-defined]
        rows = [train_step(task, 0)]
        killed = threading.Event()
        threading.Thread(target=kill_in_the_middle, args=(engine, killed)).start()
        rows.append(train_step(task, 1))
        assert killed.is_set()
        rows.append(train_step(task, 2))
        assert engine.deaths == 1
    assert [row["failed"] > 0 for row in rows] == [False, True, False]
    for row in rows:
        assert row["sync_failed"] == 0
        assert row["sync_gap"] < 1e-3
        assert row["mismatch_max"] < 1e-3
        assert row["stale"] == 0


def test_actors_need_engines(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set rollouts\.engines"):
        config_of(root, tmp_path / "none", rollouts__ray=True)
