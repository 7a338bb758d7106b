"""What a run says: log messages for people, metrics for files.

Messages go through ``logging`` to the terminal, decisions (a fallback, a dtype) by ``once``.
Metrics go to any number of ``MetricSink``s: JSON lines always, TensorBoard if installed. A
resumed run continues both without a step twice.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.logging import RichHandler

from selenite.atomic import write_text
from selenite.errors import MissingExtraError, StorageError

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

Metric = float | int | str

CONSOLE = Console(stderr=True)
"""Shared by log messages and progress bars, so that neither overwrites the other."""

_said: set[tuple[str, str]] = set()


def set_up(level: int | str = logging.INFO, console: Console = CONSOLE) -> None:
    """Sends messages of Selenite from ``level`` on, and warnings of other packages, to ``console``.

    Called by programs, never at import. Calling it again replaces the earlier set-up.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, RichHandler)]:
        root.removeHandler(handler)
    root.addHandler(RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S"))
    root.setLevel(logging.WARNING)
    logging.getLogger("selenite").setLevel(level)
    logging.captureWarnings(True)


def once(logger: logging.Logger, message: str, level: int = logging.INFO) -> None:
    """Logs ``message`` the first time that this process says it through ``logger``.

    For decisions and fallbacks, whose reason belongs into ``message``.
    """
    key = (logger.name, message)
    if key not in _said:
        _said.add(key)
        logger.log(level, message)


class MetricSink(Protocol):
    """Takes the metrics of a step. Steps never decrease; one step may be written in parts."""

    def write(self, step: int, metrics: Mapping[str, Metric]) -> None:
        """Records ``metrics`` so that a kill of the process after return cannot lose them."""
        ...

    def close(self) -> None:
        """Ends the record; ``write`` must not follow."""
        ...


class JsonLines:
    """One JSON object a line: ``{"step": 3, "train.loss": 5.1}``; NaN and infinities are null.

    With ``resumed_step``, lines of later steps and a torn last line are dropped and writing goes
    on after the rest; without it the file starts empty. Raises ``StorageError`` when the file
    cannot be written, or holds something else.
    """

    def __init__(self, path: str | Path, resumed_step: int | None = None) -> None:
        self.path = Path(path)
        kept = [] if resumed_step is None else list(self._until(resumed_step))
        write_text(self.path, "".join(kept))
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, step: int, metrics: Mapping[str, Metric]) -> None:
        assert "step" not in metrics, "the step is an argument, not a metric"
        values = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in metrics.items()
        }
        try:
            self._file.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        self._file.close()

    def _until(self, step: int) -> Iterator[str]:
        """The file's lines of steps up to ``step``."""
        text = ""
        if self.path.exists():
            try:
                text = self.path.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise StorageError(
                    f"{self.path}: metrics cannot be read ({error.strerror}); move it away to "
                    "resume without its history"
                ) from error
        # Not splitlines(): a sample may hold a line separator that JSON does not escape. What comes
        # after the last line end was being written when the process was killed.
        for number, line in enumerate(text.split("\n")[:-1], start=1):
            try:
                record = json.loads(line)
                is_kept = record["step"] <= step
            except (ValueError, KeyError, TypeError):
                raise StorageError(
                    f"{self.path}, line {number}: not a record of metrics; "
                    "move the file away to resume without its history"
                ) from None
            if is_kept:
                yield line + "\n"

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(f"{self.path}: metrics cannot be written ({error.strerror})")


class TensorBoard:
    """Event files for TensorBoard: numbers as scalars, strings as text.

    With ``resumed_step``, the dashboard is told to drop what earlier files say of later steps;
    without it, all that they say.
    Raises ``MissingExtraError`` without the package ``tensorboard``, and ``StorageError`` when
    the directory cannot be written.
    """

    def __init__(self, directory: str | Path, resumed_step: int | None = None) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import SessionLog
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ModuleNotFoundError as error:
            name = error.name or "tensorboard"
            raise MissingExtraError(name, "train", "writing TensorBoard events") from error
        self.directory = Path(directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._writer = EventFileWriter(str(self.directory))
        except OSError as error:
            raise self._unwritable(error) from error
        # The dashboard drops, at the second and each later start in a directory, what it has read
        # of this step and those after it.
        first_step = 0 if resumed_step is None else resumed_step + 1
        self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, metrics: Mapping[str, Metric]) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        for name, value in metrics.items():
            encode = text_pb if isinstance(value, str) else scalar_pb
            self._add(step, summary=encode(name, value))
        try:
            self._writer.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event: Event = Event(step=step, wall_time=datetime.now(UTC).timestamp(), **content)
        try:  # an earlier event's error comes up here, for a thread writes them
            self._writer.add_event(event)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(f"{self.directory}: metrics cannot be written ({error.strerror})")
