"""Answers on disk by what was asked: the same question is paid for once.

A key is the hash of the body as it is sent: messages, tools, schema, parameters, model and seed.
It has neither the address nor the API key. Threads of one cache that ask the same at once ask it
once. Processes may ask it twice; then the first answer stays and both take that.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selenite.atomic import write_text
from selenite.errors import StorageError

_VERSION = 1  # of the entries, and of how bodies are read


def key_of(body: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of a request's body. Order matters: models read a schema in its order."""
    return _digest([_VERSION, body])


@dataclass(frozen=True)
class Found:
    """What a cache has for a key."""

    answer: dict[str, Any] | None  # None: nothing that can be used
    is_corrupted: bool = False  # there was an entry, and it was not what had been written


@dataclass
class _Flight:
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: int = 0


class Cache:
    """A folder of answers, for any number of threads and processes.

    Raises ``StorageError`` when the folder cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._flights: dict[str, _Flight] = {}
        self._make(folder)

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """One thread at a time is inside with a key."""
        with self._guard:
            flight = self._flights.setdefault(key, _Flight())
            flight.threads += 1
        try:
            with flight.lock:
                yield
        finally:
            with self._guard:
                flight.threads -= 1
                if not flight.threads:
                    del self._flights[key]

    def read(self, key: str) -> Found:
        """The answer of a key. A corrupted entry counts as none; the next ``write`` replaces it."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Found(None)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read ({error.strerror})") from error
        try:
            entry = json.loads(data)
            answer = entry["answer"]
            is_whole = entry["key"] == key and entry["sha256"] == _digest(answer)
        except (ValueError, LookupError, TypeError, RecursionError):
            is_whole = False
        return Found(answer) if is_whole else Found(None, is_corrupted=True)

    def write(self, key: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Keeps an answer, unless another process was faster; gives the one that is kept."""
        path = self._path(key)
        self._make(path.parent)
        with _locked(path.parent / "lock"):
            found = self.read(key)
            if found.answer is not None:
                return found.answer
            entry = {"key": key, "sha256": _digest(answer), "answer": answer}
            write_text(path, json.dumps(entry) + "\n")
        return answer

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be made ({error.strerror})") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One thread of one process at a time is inside."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
