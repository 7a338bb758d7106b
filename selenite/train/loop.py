"""The training loop: resume, step, measure, evaluate, sample, save, stop in good order.

It drives any ``Task`` (``train/task.py``) and owns the run's directory: ``metrics.jsonl``,
``tensorboard/``, ``checkpoints/``. Time comes only from the clock it is given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field

from selenite.clock import Clock
from selenite.config import Config
from selenite.errors import CheckpointError, ConfigError, NonFiniteError
from selenite.log import JsonLines, Metric, MetricSink, TensorBoard
from selenite.train.checkpoint import CheckpointStore
from selenite.train.lock import exclusive
from selenite.train.metrics import rates
from selenite.train.monitor import SpikeMonitor
from selenite.train.progress import Display
from selenite.train.step import train_step
from selenite.train.stop import StopSignals
from selenite.train.task import Task

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"


class LoopConfig(Config):
    """What a run does on its way, and where it keeps its files."""

    out_dir: Path
    eval_every: int = Field(default=0, ge=0)
    """Steps between evaluations, besides the one before the first step and the one at the end;
    0: only these two. The same for samples and checkpoints, but at the end alone."""
    sample_every: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=0, ge=0)
    keep_last: int = Field(default=2, ge=1)
    """Checkpoints kept; older ones are deleted after a newer one is complete."""
    resume: str = "latest"
    """``latest``, ``none`` (refuses if there are checkpoints), or the path of a checkpoint."""
    tensorboard: bool = True


class Status(StrEnum):
    """How ``run`` ended."""

    FINISHED = "finished"
    STOPPED = "stopped"  # by a signal, after a checkpoint
    ALREADY_FINISHED = "already finished"  # nothing was left to do


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    status: Status
    step: int  # finished steps
    totals: Totals
    spikes: int  # of the loss, by train/monitor.py
    checkpoint: Path | None  # of that step; none: stopped before the first
    exit_code: int  # 0, or 128 + the signal's number


@dataclass
class Totals:
    """Counted over the whole life of a run, interruptions left out. Part of a checkpoint."""

    tokens: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0  # spent in steps: without evaluation, samples and saving
    steps_with_clipping: int = 0  # in which QK-Clip scaled at least one head


@dataclass
class _RunState:
    """The loop's own state."""

    step: int = 0
    totals: Totals = field(default_factory=Totals)
    monitor: SpikeMonitor = field(default_factory=SpikeMonitor)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "totals": asdict(self.totals),
            "monitor": self.monitor.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.totals = Totals(**state["totals"])
        self.monitor.load_state_dict(state["monitor"])


def run(
    task: Task[Any],
    steps: int,
    config: LoopConfig,
    clock: Clock,
    display: Display,
    peak_flops: float | None = None,
) -> Outcome:
    """Trains ``task`` to ``steps`` finished steps, or until a signal.

    Raises ``NonFiniteError`` (naming the last checkpoint), ``CheckpointError``, ``StorageError``,
    and ``ConfigError`` when more steps are done than asked for.
    """
    with exclusive(config.out_dir):
        return run_held(task, steps, config, clock, display, peak_flops)


def run_held(
    task: Task[Any],
    steps: int,
    config: LoopConfig,
    clock: Clock,
    display: Display,
    peak_flops: float | None = None,
    on_accepted: Callable[[], None] = lambda: None,
) -> Outcome:
    """``run`` for a caller that holds ``config.out_dir`` itself (``train/lock.py``).

    ``on_accepted`` is called once it is sure that there is something to train, and with what:
    after a checkpoint is loaded, before the first step. A run that is refused changes no file.
    """
    store = CheckpointStore(config.out_dir / CHECKPOINTS, config.keep_last)
    run = _RunState()
    checkpoint = _resume(task, steps, config.resume, store, run)
    if checkpoint is not None and run.step >= steps:
        return Outcome(
            Status.ALREADY_FINISHED, run.step, run.totals, run.monitor.count, checkpoint, 0
        )
    on_accepted()
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        sinks = _open_sinks(config, run.step if checkpoint else None, stack)
        stack.enter_context(display)
        if checkpoint is None:
            _report(sinks, display, steps, 0, task.evaluate())
        while run.step < steps and stop.received is None:
            metrics = _measured_step(task, run, clock, peak_flops, checkpoint)
            if _is_due(config.eval_every, run.step, steps):
                metrics |= task.evaluate()
            if _is_due(config.sample_every, run.step, steps):
                metrics |= _sample_metrics(task)
            _report(sinks, display, steps, run.step, metrics)
            if _is_due(config.checkpoint_every, run.step, steps):
                checkpoint = store.save(run.step, task, run.state_dict())
        if stop.received is not None and 0 < run.step < steps:
            checkpoint = _save_unless_saved(store, checkpoint, task, run)
    status = Status.FINISHED if run.step >= steps else Status.STOPPED
    exit_code = 0 if stop.received is None else 128 + stop.received
    return Outcome(status, run.step, run.totals, run.monitor.count, checkpoint, exit_code)


def _resume(
    task: Task[Any], steps: int, resume: str, store: CheckpointStore, run: _RunState
) -> Path | None:
    """Restores ``task`` and ``run``; returns the checkpoint that they came from, if any."""
    path: Path | None
    if resume == "latest":
        path = store.latest()
    elif resume == "none":
        path = None
        if store.paths():
            raise CheckpointError(
                f"train.resume=none, but {store.directory} has checkpoints up to "
                f"{store.paths()[0].name}; choose another train.out_dir, or delete them"
            )
    else:
        path = Path(resume).resolve()
    if path is None:
        return None
    run.load_state_dict(store.load(path, task))
    if run.step > steps:
        raise ConfigError(
            f"{path} has {run.step} steps done, more than the {steps} asked for; ask for "
            f"{run.step} or more, or set train.resume to an earlier checkpoint"
        )
    if run.step >= steps and path.parent != store.directory:
        raise CheckpointError(
            f"train.resume={path} has {run.step} steps done, the run is to have {steps}: nothing "
            "is left to train here; raise train.steps or train.tokens"
        )
    for moved in store.set_aside_after(path):
        logger.warning("a newer checkpoint is set aside as %s", moved)
    logger.info("resumed from %s: %d steps are done", path, run.step)
    return path


def _measured_step(
    task: Task[Any], run: _RunState, clock: Clock, peak_flops: float | None, checkpoint: Path | None
) -> dict[str, Metric]:
    """One step with its rates; counts it into ``run``."""
    start = clock.now()
    try:
        metrics: dict[str, Metric] = dict(train_step(task, run.step))
    except NonFiniteError as error:
        kept = (
            f"the last checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
        )
        raise NonFiniteError(f"{error}; {kept}") from error
    seconds = clock.now() - start
    run.step += 1
    metrics |= rates(metrics, seconds, peak_flops)
    totals = run.totals
    totals.tokens += float(metrics.get("tokens", 0))
    totals.flops += float(metrics.get("flops", 0))
    totals.seconds += seconds
    totals.steps_with_clipping += bool(metrics.get("clipped_heads", 0))
    name = "loss" if len(task.phases) == 1 else f"{task.phases[0].name}.loss"
    loss = float(metrics[name])
    if run.monitor.observe(loss):
        logger.warning("loss spike at step %d: %.3f", run.step, loss)
    metrics["spikes"] = run.monitor.count
    return metrics


def _is_due(every: int, step: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


def _sample_metrics(task: Task[Any]) -> dict[str, Metric]:
    texts: dict[str, Metric] = {}
    for number, sample in enumerate(task.samples(), start=1):
        texts[f"sample.{number}.prompt"] = sample.prompt
        texts[f"sample.{number}.text"] = sample.text
    return texts


def _open_sinks(config: LoopConfig, resumed_step: int | None, stack: ExitStack) -> list[MetricSink]:
    sinks: list[MetricSink] = [JsonLines(config.out_dir / METRICS, resumed_step)]
    stack.callback(sinks[0].close)
    if config.tensorboard:
        sinks.append(TensorBoard(config.out_dir / "tensorboard", resumed_step))
        stack.callback(sinks[1].close)
    return sinks


def _report(
    sinks: Sequence[MetricSink],
    display: Display,
    steps: int,
    step: int,
    metrics: Mapping[str, Metric],
) -> None:
    for sink in sinks:
        sink.write(step, metrics)
    display.show(step, steps, metrics)


def _save_unless_saved(
    store: CheckpointStore, checkpoint: Path | None, task: Task[Any], run: _RunState
) -> Path:
    """The checkpoint of this very step: the signal may have come just after it was written."""
    if checkpoint is not None and checkpoint == store.path_of(run.step):
        return checkpoint
    return store.save(run.step, task, run.state_dict())
