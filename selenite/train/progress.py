"""What a person sees while a run trains: a live bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from selenite.clock import Clock
from selenite.log import CONSOLE, Metric
from selenite.train.metrics import one_line

logger = logging.getLogger(__name__)


class Display(Protocol):
    """Shows the steps of a run. A context manager around the loop."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, step: int, steps: int, metrics: Mapping[str, Metric]) -> None:
        """``step`` of ``steps`` is done and measured so. Metrics left out keep their last value."""
        ...


def make_display(clock: Clock, console: Console = CONSOLE) -> Display:
    """A live bar if ``console`` is a terminal, else lines in the log."""
    return LiveBar(console) if console.is_terminal else LogLines(clock)


class LiveBar:
    """A bar with elapsed and remaining time, and the metrics on the line below it."""

    def __init__(self, console: Console) -> None:
        self._latest: dict[str, Metric] = {}
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("\n{task.description}"),
            console=console,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, step: int, steps: int, metrics: Mapping[str, Metric]) -> None:
        self._latest.update(metrics)
        self._progress.update(
            self._task, completed=step, total=steps, description=one_line(self._latest)
        )


class LogLines:
    """A line in the log at most every ``every`` seconds, and for the first and the last step."""

    def __init__(self, clock: Clock, every: float = 10.0) -> None:
        self._clock = clock
        self._every = every
        self._shown_at: float | None = None
        self._latest: dict[str, Metric] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def show(self, step: int, steps: int, metrics: Mapping[str, Metric]) -> None:
        self._latest.update(metrics)
        now = self._clock.now()
        if self._shown_at is None or now - self._shown_at >= self._every or step == steps:
            self._shown_at = now
            logger.info("step %d/%d  %s", step, steps, one_line(self._latest))


class CorpusBar:
    """How far the preparation of a corpus is, one stage after the other; nothing if it is found
    ready. On a terminal; elsewhere one line a stage in the log."""

    def __init__(self, console: Console = CONSOLE) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            console=console,
        )
        self._is_live = console.is_terminal
        self._stages: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` units of ``stage`` are done (data/prepare.py)."""
        if stage not in self._stages:
            if self._is_live:
                self._progress.start()
            else:
                logger.info("preparing the corpus: %s", stage)
            self._stages[stage] = self._progress.add_task(f"corpus: {stage}", total=total)
        self._progress.update(self._stages[stage], completed=done, total=total)
