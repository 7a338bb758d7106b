"""Fault campaign: ``kill -9`` at random moments while a run writes its checkpoints.

A tiny K2-style model trains in a process of its own and saves after every step. The campaign waits
until a checkpoint is being written, waits a random part of the time that a checkpoint takes, kills
the process, checks that the newest checkpoint is whole, and starts the process again. At the end
the run must be bit for bit the one that was never interrupted.

    python -m experiments.checkpoint_kills [--kills 60]     writes the row faults.checkpoint_kills
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from benchmarks.results import record
from selenite.clock import ManualClock
from selenite.config import load
from selenite.data.prepare import DataConfig, prepare
from selenite.errors import CheckpointError
from selenite.train import manifest
from selenite.train.checkpoint import CheckpointStore
from selenite.train.loop import CHECKPOINTS, METRICS, run
from selenite.train.pretrain import PretrainConfig, build_task
from selenite.train.pretrain_task import PretrainTask
from selenite.train.progress import LogLines

ROOT = Path(__file__).resolve().parents[1]
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])  # torch is imported once, not for every kill

STEPS_A_KILL = 4
"""Steps that the run has for each kill, so that there is always a checkpoint still to come."""


@dataclass
class Report:
    """What a campaign found."""

    kills: int = 0
    mid_write: int = 0  # kills that left a half-written checkpoint behind
    failures: list[str] = field(default_factory=list)


def _config(out_dir: Path, steps: int) -> PretrainConfig:
    text = out_dir.parent / "text"
    text.mkdir(parents=True, exist_ok=True)
    for name in ("experiments/checkpoint_kills.py", "benchmarks/results.py"):
        shutil.copy2(ROOT / name, text)  # small, so that a start takes no time
    overrides = [
        f"data.sources=[{{kind='folder', path='{text}'}}]",
        f"train.out_dir={out_dir}",
        f"train.data_cache={out_dir.parent / 'corpora'}",
        f"train.steps={steps}",
        "train.checkpoint_every=1",
        "train.eval_every=0",
        "train.sample_every=0",
        "train.tensorboard=false",
    ]
    return load(PretrainConfig, ROOT / "configs" / "tiny.toml", overrides)


def train(out_dir: Path, steps: int) -> PretrainTask:
    """The run under attack, to its end."""
    torch.set_num_threads(1)
    config = _config(out_dir, steps)
    assert isinstance(config.data, DataConfig)
    corpus = prepare(config.data, config.train.data_cache)
    task = build_task(config, [corpus], "cpu", torch.float32)
    clock = ManualClock()
    try:
        run(task, steps, config.train, clock, LogLines(clock))
    finally:
        task.close()
    return task


def campaign(kills: int, work: Path, seed: int = 0) -> Report:
    """Kills a run ``kills`` times and compares its end with that of an undisturbed one."""
    steps = STEPS_A_KILL * (kills + 1)
    whole = train(work / "whole", steps)
    generator, report = random.Random(seed), Report()
    out_dir = work / "killed"
    while report.kills < kills:
        process = _start(out_dir, steps)
        if not _kill_during_a_write(process, out_dir / CHECKPOINTS, generator):
            report.failures.append(f"the run ended before kill {report.kills + 1}")
            break
        report.kills += 1
        report.mid_write += any((out_dir / CHECKPOINTS).glob(f"{manifest.TEMPORARY}step_*"))
        for path in sorted((out_dir / CHECKPOINTS).glob("step_*")):
            report.failures += manifest.faults(path)
    last = _start(out_dir, steps)
    last.join()
    if last.exitcode != 0:
        report.failures.append("the run did not go on to its end")
    else:
        report.failures += _differences(whole, work / "whole", out_dir, steps)
    return report


def _start(out_dir: Path, steps: int) -> BaseProcess:
    process = _FORKSERVER.Process(target=train, args=(out_dir, steps))
    process.start()
    return process


def _kill_during_a_write(process: BaseProcess, checkpoints: Path, generator: random.Random) -> bool:
    """Lets one checkpoint be written and kills during the next; false if the run ended first."""

    def wait_until(is_writing: bool) -> bool:
        while any(checkpoints.glob(f"{manifest.TEMPORARY}step_*")) != is_writing:
            if process.exitcode is not None:
                return False
            time.sleep(0.0005)
        return True

    if not (wait_until(False) and wait_until(True)):  # the new process removes what the last left
        return False
    began = time.perf_counter()
    if not wait_until(False):
        return False
    seconds_a_write = time.perf_counter() - began
    if not wait_until(True):
        return False
    time.sleep(generator.uniform(0, 1.1 * seconds_a_write))  # now and then just after the write
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def _differences(whole: PretrainTask, whole_dir: Path, out_dir: Path, steps: int) -> list[str]:
    """What the run that was killed ended with, other than the one that was not."""
    found = []
    config = _config(out_dir, steps)
    assert isinstance(config.data, DataConfig)
    corpus = prepare(config.data, config.train.data_cache)
    resumed = build_task(config, [corpus], "cpu", torch.float32)
    store = CheckpointStore(out_dir / CHECKPOINTS, config.train.keep_last)
    try:
        latest = store.latest()
        assert latest is not None
        store.load(latest, resumed)
    except CheckpointError as error:
        return [str(error)]
    finally:
        resumed.close()
    for name, value in whole.model.state_dict().items():
        if not torch.equal(value, resumed.model.state_dict()[name]):
            found.append(f"{name} differs")
    if _losses(whole_dir) != _losses(out_dir):
        found.append("the recorded losses differ")
    return found


def _losses(out_dir: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (out_dir / METRICS).read_text().split("\n") if line]
    return [(row["step"], row.get("loss")) for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.checkpoint_kills")
    parser.add_argument("--kills", type=int, default=60)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as work:
        report = campaign(arguments.kills, Path(work))
    for failure in report.failures:
        print(f"failure: {failure}", file=sys.stderr)
    survived = report.kills if not report.failures else 0
    record(
        "faults.checkpoint_kills",
        claim="kill -9 while a checkpoint is written: the run goes on bit for bit from the last",
        value=survived,
        unit="kills survived",
        low=survived,
        high=survived,
        runs=report.kills,
        target=">= 50",
        reference=None,
        command=f"python -m experiments.checkpoint_kills --kills {arguments.kills}",
        note=f"failures: {len(report.failures)}; "
        f"{report.mid_write} kills left a half-written checkpoint",
    )
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
