"""What came of documents: each rephrasing is kept, or dropped for one reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

Counts = dict[str, int]


@dataclass
class Tally:
    """Of a shard, or of all together."""

    number: int  # of the shard
    documents: int = 0
    rephrasings: int = 0  # that were due: a document has one in each round
    kept: int = 0
    chars_in: int = 0  # of the sources of what was kept, once for each round
    chars_out: int = 0
    chunks: int = 0  # of what was kept: those that were rewritten
    verbatim: int = 0  # those of code, tables and the like
    dropped: Counts = field(default_factory=dict)  # rephrasings, by reason
    stayed: Counts = field(default_factory=dict)  # chunks that stayed as they were, by reason
    faults: Counts = field(default_factory=dict)  # tries of chunks that did not pass, by reason
    styles: Counts = field(default_factory=dict)  # of what was kept
    perspectives: Counts = field(default_factory=dict)
    backends: Counts = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)  # by file

    def add(self, other: Tally) -> None:
        """Takes another shard's counts in."""
        for name in (one.name for one in fields(self) if one.name not in ("number", "sha256")):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, int):
                setattr(self, name, mine + theirs)
            else:
                count(mine, theirs)
        self.sha256 |= other.sha256

    def check_integrity(self) -> None:
        """Nothing is lost: what was due was kept or dropped; asserts it."""
        assert self.rephrasings == self.kept + sum(self.dropped.values()), self
        for counts in (self.styles, self.perspectives, self.backends):
            assert sum(counts.values()) == self.kept, self


def count(counts: Counts, more: Mapping[str, int]) -> None:
    """Adds counts to counts."""
    for name, number in more.items():
        counts[name] = counts.get(name, 0) + number
