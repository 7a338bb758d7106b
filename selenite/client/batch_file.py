"""The two files of a batch: OpenAI's request lines in, a line for each answer out.

An output line is written whole, by one ``write`` at the file's end, so a kill leaves at most one
torn last line, which the next run drops.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenite.atomic import write_text
from selenite.errors import DataError, StorageError


@dataclass(frozen=True)
class BatchLine:
    """One line of the input; what is inside is checked when its turn comes."""

    custom_id: str  # unique in its file
    request: dict[str, Any]  # method, url, body


def read_input(path: Path) -> list[BatchLine]:
    """Raises ``DataError``, with the line, for what cannot even be answered by its custom_id."""
    lines: list[BatchLine] = []
    seen: dict[str, int] = {}
    for number, text in _lines(path):
        place = f"{path}, line {number}"
        try:
            request = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not JSON ({error})") from error
        custom_id = request.get("custom_id") if isinstance(request, dict) else None
        if not isinstance(custom_id, str) or not custom_id:
            raise DataError(f"{place}: must be an object with a custom_id, a string of its own")
        if custom_id in seen:
            raise DataError(f"{place}: custom_id {custom_id!r} is line {seen[custom_id]}'s already")
        seen[custom_id] = number
        lines.append(BatchLine(custom_id, request))
    if not lines:
        raise DataError(f"{path}: no requests in it")
    return lines


class OutputFile:
    """Where answers are appended; one process at a time.

    ``done`` has the custom_ids that were answered well before. Failed and torn lines are dropped
    when the file is opened: they will be asked again. Raises ``StorageError`` when the file cannot
    be written or another process writes it, and ``DataError`` when it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: set[str] = set()
        with ExitStack() as stack:
            self._descriptor = self._open()
            stack.callback(self.close)
            kept = "".join(self._kept())
            if kept != self._text():
                write_text(path, kept)
                replaced, self._descriptor = self._descriptor, self._open()
                os.close(replaced)
            stack.pop_all()

    def append(self, line: dict[str, Any]) -> None:
        """Writes one answer; a kill after the return does not lose it."""
        data = (json.dumps(line) + "\n").encode()
        try:
            while data:  # one write takes all, but for a full disk or a signal
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Lets others write the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise StorageError(f"{self.path}: another process writes it") from error
        return descriptor

    def _text(self) -> str:
        return self.path.read_bytes().decode(errors="replace")

    def _kept(self) -> Iterator[str]:
        """Lines of answers that went well."""
        *lines, _ = self._text().split("\n")
        for number, text in enumerate(lines, start=1):
            try:
                line = json.loads(text)
                custom_id, is_failed = line["custom_id"], line["error"] is not None
            except (json.JSONDecodeError, LookupError, TypeError) as error:
                raise DataError(
                    f"{self.path}, line {number}: not an answer of a batch; name another file"
                ) from error
            if not is_failed:
                self.done.add(custom_id)
                yield text + "\n"

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(f"{self.path}: cannot be written ({error.strerror})")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error})") from error
    # Not splitlines(): JSON may hold a line separator that it does not escape.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line
