"""What every call took and came to: a line of JSON each, and totals that add up."""

from __future__ import annotations

import copy
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from selenite.agent.models.failure import Fault, ModelError
from selenite.agent.models.price import Price
from selenite.agent.models.totals import ABORTED, COUNTS, OK, Totals
from selenite.client.pieces import Usage
from selenite.clock import Clock
from selenite.errors import StorageError


class Entry:
    """A call while it runs, in one thread."""

    def __init__(self, name: str, model: str, price: Price) -> None:
        self.counts: Counter[str] = Counter()  # by the names in totals.COUNTS
        self._name = name
        self._model = model
        self._price = price
        self._cost = Decimal(0)
        self._faults: Counter[str] = Counter()

    def count(self, name: str, number: int = 1) -> None:
        """Adds to one of ``COUNTS``."""
        assert name in COUNTS, name
        self.counts[name] += number

    def fault(self, fault: Fault) -> None:
        """Notes a try or a reply that is of no use."""
        self._faults[fault.reason.value] += 1

    def pay(self, usage: Usage) -> None:
        """Notes the tokens of a reply that did not come from the cache."""
        self.count("tokens_in", usage.prompt)
        self.count("tokens_in_cached", usage.cached or 0)
        self.count("tokens_out", usage.completion)
        self._cost += self._price.of(usage)

    def line(self, outcome: str, detail: str, seconds: float) -> dict[str, Any]:
        """As the file has it. Prompts and replies are not in it, nor is the API key."""
        return {
            "name": self._name,
            "model": self._model,
            "outcome": outcome,
            "detail": detail,
            **{name: self.counts[name] for name in COUNTS},
            "cost": float(self._cost),  # the shortest decimal, which reads back as it was
            "seconds": round(seconds, 6),
            "faults": dict(self._faults),
        }


class Ledger:
    """Calls of any number of models and threads; several processes may write one file.

    ``path=None`` keeps totals only. Raises ``StorageError`` when the file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.last_failure = ""  # of a call, for people; "": none failed
        self._path = path
        self._guard = threading.Lock()
        self._all = Totals()
        self._by_name: dict[str, Totals] = {}
        self._descriptor = None if path is None else _open(path)

    @contextmanager
    def call(self, name: str, model: str, price: Price, clock: Clock) -> Iterator[Entry]:
        """A call, which ends with the block: well, by a ``ModelError``, or aborted."""
        entry = Entry(name, model, price)
        started = clock.now()
        outcome, detail = ABORTED, ""
        try:
            yield entry
            outcome = OK
        except ModelError as failure:
            outcome, detail = failure.reason.value, failure.detail
            self.last_failure = f"{name}, {model}: {outcome}: {detail}"
            raise
        finally:
            self._write(entry.line(outcome, detail, clock.now() - started), name)

    def totals(self, name: str | None = None) -> Totals:
        """What the calls so far came to, of all models or of those of a name; a copy."""
        with self._guard:
            found = self._all if name is None else self._by_name.get(name, Totals())
            return copy.deepcopy(found)

    def close(self) -> None:
        """Closes the file; no call must follow."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _write(self, line: dict[str, Any], name: str) -> None:
        data = (json.dumps(line) + "\n").encode()
        with self._guard:
            self._all.add(line)
            self._by_name.setdefault(name, Totals()).add(line)
            if self._descriptor is None:
                return
            try:
                while data:  # one write takes all, but for a full disk or a signal
                    data = data[os.write(self._descriptor, data) :]
            except OSError as error:
                raise StorageError(f"{self._path}: cannot be written ({error.strerror})") from error


def _open(path: Path) -> int:
    """For appending, on a line of its own."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a kill has torn the last line
            os.write(descriptor, b"\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error
    return descriptor
