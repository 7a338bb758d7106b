"""Interrupted commands: everything is gone at once, and what was made goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from selenite.agent.workers import processes, threads
from tests.agent.models.stub import answer
from tests.fixtures.scripted_server import Answer, ScriptedServer, scripted_server

CORPUS = """
out_dir = "{folder}/out"
seed = 3
domains = 4
tasks = 400
shard_tasks = 100
{more}

[roles]
{role} = [{{ endpoint = "slow" }}]

[roles.endpoints.slow]
base_url = "{url}"
model = "m"
"""
REPHRASED = """
out_dir = "{folder}/out"

[[sources]]
kind = "folder"
path = "docs"

[[backends]]
kind = "model"
base_url = "{url}"
model = "m"
"""


@contextmanager
def slow() -> Iterator[ScriptedServer]:
    """The first request is answered, the others after half a minute."""
    asked = list[str]()

    def script(path: str, body: object) -> Answer:
        asked.append(path)
        return answer("Hello.") if len(asked) == 1 else Answer([(30.0, b"")])

    with scripted_server(script) as server:
        yield server


SHARDS, ARCHETYPES = (
    ("synth make", CORPUS, "user", ""),
    (
        "synth make",
        CORPUS,
        "domain_author",
        "archetypes = 4",
    ),
)


REPHRASING = "rephrase", REPHRASED, "", ""


@pytest.mark.parametrize(
    ("what", "number", "to_group"),
    [
        pytest.param(SHARDS, signal.SIGINT, True, id="shards"),
        pytest.param(SHARDS, signal.SIGINT, False, id="the parent", marks=pytest.mark.slow),
        pytest.param(SHARDS, signal.SIGTERM, False, id="terminated", marks=pytest.mark.slow),
        pytest.param(ARCHETYPES, signal.SIGINT, True, id="archetypes", marks=pytest.mark.slow),
        pytest.param(REPHRASING, signal.SIGINT, True, id="rephrase", marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_leaves_nothing_behind(
    what: tuple[str, str, str, str], number: int, to_group: bool, tmp_path: Path
) -> None:
    command, config, role, more = what
    path = tmp_path / "config.toml"
    with slow() as server:
        path.write_text(config.format(folder=tmp_path, url=server.url, role=role, more=more))
        process = subprocess.Popen(
            [sys.executable, "-m", "selenite", *command.split(), str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        end = time.monotonic() + 60
        while len(server.requests) < 3:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
        if to_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        gone, left = psutil.wait_procs(family, timeout=15)
        for one in left:
            one.kill()
        assert not left
        assert len(gone) == len(family)
        said, _ = process.communicate()
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert parent.returncode == 130
        assert "the same command goes on from here" in said


def test_an_error_ends_processes_and_leaves_threads() -> None:

    def broken(pool: Executor, job: Callable[..., object]) -> None:
        futures.extend(pool.submit(job, 60) for _ in range(8))
        time.sleep(0.3)
        raise RuntimeError("no")

    futures = list[Future[object]]()
    with pytest.raises(RuntimeError, match="no"), processes(2) as pool:
        broken(pool, time.sleep)
    assert all(future.cancelled() or future.exception() for future in futures)
    futures.clear()
    release = threading.Event()
    with pytest.raises(RuntimeError, match="no"), threads(2) as pool:
        broken(pool, release.wait)
    assert sum(future.cancelled() for future in futures) == 6
    release.set()


MARKS = list[int]()


def _mark(more: int) -> None:
    MARKS.append(more)


def _marks(unused: int) -> list[int]:
    return MARKS


def test_workers_begin_with_what_they_are_told() -> None:
    with processes(2, _mark, 7) as pool:
        assert list(pool.map(_marks, range(3))) == [[7]] * 3
    assert MARKS == []
