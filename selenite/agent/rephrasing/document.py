"""One document in one round: chunk after chunk, each with what is written so far (K2, fig. 4).

chunk ──► back end ──► fidelity ──► judge ──► next chunk
             ▲             │          │
             └── why not ──┴──────────┘   at last: the chunk stays, or the document is dropped
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from selenite.agent.rephrasing.backends import Backends
from selenite.agent.rephrasing.blocks import BlockKind, blocks_of, prose_share, title_of
from selenite.agent.rephrasing.chunks import Chunk, chunks_of, join
from selenite.agent.rephrasing.config import RephrasingConfig
from selenite.agent.rephrasing.fidelity import Fault, faults_of
from selenite.agent.rephrasing.original import Original
from selenite.agent.rephrasing.passage import Attempt, Passage, Rephraser
from selenite.agent.rephrasing.styles import Perspective, Style, choose
from selenite.data.dedup import jaccard, shingles

TOO_LITTLE = "too_little_text"
LITTLE_PROSE = "little_prose"
NEAR_COPY = "near_copy"  # of the source, or of an earlier round


@dataclass
class Outcome:
    """What came of a document in a round."""

    style: Style
    perspective: Perspective
    backend: str
    text: str = ""  # empty: dropped, for ``fault``
    fault: Fault | None = None
    chunks: int = 0
    verbatim: int = 0
    stayed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


class DocumentRephraser:
    """The rounds of one document."""

    def __init__(self, number: int, text: str, config: RephrasingConfig, backends: Backends):
        self._number = number
        self._original = Original(text)
        self._config = config
        self._backends = backends
        self._chunks = chunks_of(text, config.chunk_chars)
        self._known = [shingles(text)]  # of the source and of the rounds so far

    def rephrase(self, round_number: int) -> Outcome:
        """The document in its next round; raises ``StorageError`` for a disk that is full."""
        style, perspective = choose(self._config.seed, self._number, round_number)
        item = self._number * self._config.rounds + round_number
        rephraser = self._backends.rephrasers.of(item)
        outcome = Outcome(style, perspective, rephraser.name)
        outcome.fault = self._unfit() or self._write(round_number, rephraser, outcome)
        if outcome.fault is not None:
            outcome.text = ""
        return outcome

    def _unfit(self) -> Fault | None:
        if len(self._original.text.strip()) < self._config.least_chars:
            return Fault(TOO_LITTLE, "")
        if prose_share(self._original.text) < self._config.least_prose:
            return Fault(LITTLE_PROSE, "")
        return None

    def _write(self, round_number: int, rephraser: Rephraser, outcome: Outcome) -> Fault | None:
        """Puts the text together; gives why the document is dropped, if it is."""
        parts: list[tuple[Chunk, str]] = []
        kept_chars, heading = 0, ""
        for place, chunk in enumerate(self._chunks):
            if chunk.is_verbatim:
                parts.append((chunk, chunk.text))
                outcome.verbatim += 1
            else:
                path = (self._number, round_number, place)
                passage = self._passage(chunk, heading, parts, path, outcome)
                written = self._rewrite(passage, rephraser, outcome)
                if isinstance(written, Fault):
                    kept_chars += len(chunk.text)
                    limit = self._config.most_kept * len(self._original.text)
                    if written.is_of_endpoint or kept_chars > limit:
                        return written
                    outcome.stayed[written.reason] += 1
                    parts.append((chunk, chunk.text))
                else:
                    outcome.chunks += 1
                    parts.append((chunk, written))
            heading = _last_heading(chunk) or heading
        outcome.text = join(parts)
        return self._too_like(outcome.text)

    def _passage(
        self,
        chunk: Chunk,
        heading: str,
        parts: list[tuple[Chunk, str]],
        path: tuple[int, int, int],
        outcome: Outcome,
    ) -> Passage:
        return Passage(
            chunk.text.lstrip("\r\n").rstrip(),
            self._original,
            heading,
            _end_of(parts, self._config.context_chars),
            outcome.style,
            outcome.perspective,
            self._config.seed,
            path,
        )

    def _rewrite(self, passage: Passage, rephraser: Rephraser, outcome: Outcome) -> str | Fault:
        """The rewrite that passes, or what was wrong with the last one."""
        earlier: list[Attempt] = []
        while True:
            written = rephraser.rewrite(passage, earlier)
            if isinstance(written, Fault):
                faults: tuple[Fault, ...] = (written,)
            else:
                faults = self._faults(passage, written)
                if not faults:
                    return written
            outcome.faults[faults[0].reason] += 1
            earlier.append(Attempt(written if isinstance(written, str) else "", faults))
            if faults[0].is_final or len(earlier) == self._config.tries:
                return faults[0]

    def _faults(self, passage: Passage, written: str) -> tuple[Fault, ...]:
        """What code has against a rewrite; the judge is asked only where it has nothing."""
        faults = faults_of(self._original, passage.text, written, self._config.fidelity)
        if faults or self._backends.judge is None:
            return faults
        fault = self._backends.judge.fault_of(passage, written)
        return () if fault is None else (fault,)

    def _too_like(self, text: str) -> Fault | None:
        """A text that ``data`` would take for a copy of the source or of an earlier round."""
        sample = shingles(text)
        if any(_likeness(sample, known) >= self._config.likeness for known in self._known):
            return Fault(NEAR_COPY, "")
        self._known.append(sample)
        return None


def _likeness(left: np.ndarray, right: np.ndarray) -> float:
    return jaccard(left, right) if len(left) and len(right) else 0.0


def _end_of(parts: list[tuple[Chunk, str]], most_chars: int) -> str:
    """The end of what is written so far."""
    first, length = len(parts), 0
    while first and length < most_chars:
        first -= 1
        length += len(parts[first][1])
    text = join(parts[first:]).strip()
    return text[max(0, len(text) - most_chars) :]


def _last_heading(chunk: Chunk) -> str:
    headings = [block.text for block in blocks_of(chunk.text) if block.kind is BlockKind.HEADING]
    return title_of(headings[-1]) if headings else ""
