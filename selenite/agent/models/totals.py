"""Sums over the lines of a ledger, of this process or of a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from selenite.errors import DataError

OK, ABORTED = "ok", "aborted"
"""Outcomes of a call besides the reasons of ``failure.py``."""

COUNTS = (
    "requests",  # sent over HTTP
    "retries",  # of them, those that sent a request again
    "repairs",  # times that a reply was wrong and the model was told
    "cached",  # replies that came from the cache
    "corrupted",  # entries of the cache that had to be asked again
    "truncated",  # replies that were cut at the token limit, used or not
    "wrong_calls",  # wrong tool calls in completions that were handed out
    "unmetered",  # completions that were paid for, and whose tokens the endpoint did not say
    "tokens_in",  # of prompts, as the endpoint counts; of cached replies none
    "tokens_in_cached",  # of tokens_in, those that the endpoint had cached
    "tokens_out",
)
"""Whole numbers of a line."""


@dataclass
class Totals:
    """What a number of calls came to."""

    calls: int = 0
    succeeded: int = 0
    aborted: int = 0  # ended by an error that is no failure of the endpoint, such as a full disk
    failed: Counter[str] = field(default_factory=Counter)  # calls, by reason
    faults: Counter[str] = field(default_factory=Counter)  # replies and tries, by reason
    counts: Counter[str] = field(default_factory=Counter)  # by the names in COUNTS
    cost: Decimal = Decimal(0)
    seconds: float = 0.0  # of all calls, waits included; calls at once count each
    unreadable: int = 0  # lines of the file that a kill has torn

    def add(self, line: Mapping[str, Any]) -> None:
        """Adds a call; raises ``LookupError`` or ``TypeError`` for what is no line of a ledger."""
        counts = {name: line[name] for name in COUNTS}
        outcome, faults, cost = line["outcome"], line["faults"], Decimal(str(line["cost"]))
        self.seconds += line["seconds"]
        self.counts.update(counts)
        self.faults.update(faults)
        self.cost += cost
        self.calls += 1
        if outcome == OK:
            self.succeeded += 1
        elif outcome == ABORTED:
            self.aborted += 1
        else:
            self.failed[outcome] += 1

    def check_integrity(self) -> None:
        """Every call has an outcome, and every fault a consequence; asserts it."""
        assert self.calls == self.succeeded + self.aborted + self.failed.total(), self
        asked = self.calls + self.counts["repairs"] + self.counts["retries"]
        answered = self.counts["requests"] + self.counts["cached"]
        assert 0 <= asked - answered <= self.aborted, self
        consequences = self.counts["retries"] + self.counts["repairs"] + self.failed.total()
        assert 0 <= self.faults.total() - consequences <= self.aborted, self


def read_ledger(path: Path) -> Totals:
    """The sums of a file, of all the processes that wrote it.

    Raises ``DataError`` for a file that cannot be read or is no ledger. A line that is no JSON is
    one that a kill has torn: it is counted in ``unreadable``.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: the ledger cannot be read ({error.strerror})") from error
    totals = Totals()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        try:
            totals.add(json.loads(line))
        except json.JSONDecodeError:
            totals.unreadable += 1
        except (LookupError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: is no line of a ledger; name the file that a Ledger wrote"
            ) from error
    return totals
