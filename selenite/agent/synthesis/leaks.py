"""What a corpus has in common with benchmarks that models trained on it are measured with.

    a corpus, or rows of chat ───────────┐
                                         ├─► find_leaks ─► overlaps: fatal ones, and others
    a benchmark's files ─► Benchmark ────┘

Three kinds are fatal: eight words in a row, a tool with its name and its parameters, and a sequence
of calls with the same parameters. Two kinds are listed, since benchmarks that know nothing of each
other have them in common, too: names of tools, and sequences whose types alone are the same.
docs/corpus-report.md gives the counts that these rules are from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.agent.rows import read_rows
from selenite.agent.synthesis.benchmark_files import read_benchmark
from selenite.agent.synthesis.dataset import MANIFEST
from selenite.agent.synthesis.diversity import read_repository
from selenite.agent.synthesis.leak_search import Kind, Overlap, Row, Search
from selenite.agent.synthesis.pipeline import trajectories
from selenite.data.documents import ReadReport, decode
from selenite.data.rows import numbered_lines, parse_json
from selenite.errors import DataError

LEAKS = "leaks.json"

_SHOWN = 10  # overlaps of a kind


@dataclass
class Leaks:
    """The result. ``compared`` says how much there was, so that none found means something."""

    compared: dict[str, int]
    skipped: dict[str, int]  # the benchmark's files that were not read, by suffix
    as_text: list[str]  # those that are no valid JSON or Python: tools of them are not known
    overlaps: list[Overlap] = field(default_factory=list)

    def of(self, kind: Kind) -> list[Overlap]:
        """The overlaps of a kind, the most frequent first."""
        return [overlap for overlap in self.overlaps if overlap.kind == kind]

    @property
    def num_fatal(self) -> int:
        return sum(overlap.kind.is_fatal for overlap in self.overlaps)

    def lines(self) -> Iterator[str]:
        """For people: how much was compared, and the most frequent overlaps of each kind."""
        for name, count in self.compared.items():
            yield f"{count:>10,} {name}"
        if self.skipped:
            counts = (f"{count} {suffix}" for suffix, count in self.skipped.items())
            yield f"not read: {', '.join(counts)}"
        if self.as_text:
            yield f"neither JSON nor Python, read as text: {', '.join(self.as_text)}"
        for kind in Kind:
            found = self.of(kind)
            yield f"{kind.value}: {len(found):,} in common" + (
                ", which is fatal" if found and kind.is_fatal else ""
            )
            for each in found[:_SHOWN]:
                yield f"  {each.count:,} x {each.what}: {each.corpus}; {each.benchmark}"

    def record(self) -> dict[str, Any]:
        """As ``leaks.json`` has it."""
        return {
            "fatal": self.num_fatal,
            "compared": self.compared,
            "skipped": self.skipped,
            "as_text": self.as_text,
            "overlaps": [vars(overlap) for overlap in self.overlaps],
        }


def write_leaks(corpus: Path, against: Sequence[Path]) -> tuple[Leaks, Path]:
    """Writes what ``find_leaks`` finds into a corpus's folder, or beside a file; returns both."""
    found = find_leaks(corpus, against)
    path = corpus / LEAKS if corpus.is_dir() else corpus.with_name(f"{corpus.stem}-{LEAKS}")
    atomic.write_text(path, json.dumps(found.record(), indent=1, ensure_ascii=False))
    return found, path


def find_leaks(corpus: Path, against: Sequence[Path]) -> Leaks:
    """Compares what a model is trained on with a benchmark's files.

    ``corpus`` is the folder of a corpus, of which trajectories, contrasts and tools are compared,
    that of a data set, or a file of conversations.

    Raises ``ConfigError`` for a path that is missing, ``DataError`` for a benchmark without files
    that can be read, or with nothing in them that a corpus could share.
    """
    benchmark = read_benchmark(against)
    search = Search(benchmark)
    if not (len(search.index) or benchmark.tools or benchmark.solutions):
        raise DataError(
            f"{', '.join(map(str, against))}: no texts, tools or solutions were found in "
            f"{benchmark.files} files, so that there is nothing to compare; give the benchmark's "
            "data"
        )
    files = [corpus] if corpus.is_file() else sorted(corpus.glob("*.jsonl"))
    if corpus.is_file() or (corpus / MANIFEST).is_file():
        for row, place in _conversations(files):
            search.look_at_chat(row, place)
    else:
        _look_at_corpus(search, corpus)
    search.compare_sequences()
    return Leaks(
        {
            "benchmark files": benchmark.files,
            "benchmark runs of words": len(search.index),
            "benchmark tools": len(benchmark.tools),
            "benchmark solutions": len(benchmark.solutions),
            "conversations": search.num_rows,
            "tools": len(search.seen),
            "sequences of calls": len(search.sequences),
        },
        dict(sorted(benchmark.skipped.items())),
        benchmark.as_text,
        sorted(search.found.values(), key=lambda each: (each.kind, -each.count, each.what)),
    )


def _conversations(files: Sequence[Path]) -> Iterator[tuple[Row, str]]:
    for path in files:
        for number, line in numbered_lines(path):
            place = f"{path.name}, line {number}"
            text = decode(line, place, "error", ReadReport())
            if text is not None and text.strip():
                yield parse_json(text, place), place


def _look_at_corpus(search: Search, corpus: Path) -> None:
    for tool in read_repository(corpus):
        number = tool["domain"].rpartition("-")[2]
        search.look_at_tool(tool, tool["domain"], f"{number} {tool['name']}")
    for row in _rows(corpus):
        search.look_at_row(row)


def _rows(corpus: Path) -> Iterator[Row]:
    yield from trajectories(corpus)
    for path in sorted((corpus / "contrasts").glob("*.jsonl.zst")):
        yield from read_rows(path)
