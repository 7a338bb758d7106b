"""The diversity report of a corpus: how many different things there are in it, and how different.

    tools.jsonl.zst ────┬─► Counts ────┐
    shards/*.jsonl.zst ─┘              ├─► report.json, report.html
    real tools, if given ──► tool map ─┘

All is counted from files alone and samples are drawn from a fixed seed, so that the same corpus
gives the same ``report.json``. docs/corpus-report.md says what the numbers mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.agent.rows import read_rows
from selenite.agent.synthesis.calibration import calibrate
from selenite.agent.synthesis.diversity_counts import Counts, Record
from selenite.agent.synthesis.diversity_page import page
from selenite.agent.synthesis.diversity_plots import check_matplotlib
from selenite.agent.synthesis.pipeline import read_manifest, trajectories
from selenite.agent.synthesis.tool_map import Picture, draw_map
from selenite.errors import ConfigError, DataError

REPORT = "report.json"
PAGE = "report.html"


@dataclass(frozen=True)
class Diversity:
    """``record`` is what ``report.json`` has, ``picture`` the map of tools."""

    record: Record
    picture: Picture


def write_report(corpus: Path, real: Path | None = None) -> Record:
    """Writes ``report.json`` and ``report.html`` into a corpus's folder; returns the former.

    ``real`` is a JSON file of tools in OpenAI's form, to put on the map beside those of the corpus.
    Raises ``ConfigError`` where there is no corpus, ``DataError`` for one without trajectories and
    for a broken file of tools, ``MissingExtraError`` without matplotlib or zstandard.
    """
    check_matplotlib()  # before the work
    found = describe(corpus, [] if real is None else read_tools(real))
    atomic.write_text(corpus / REPORT, json.dumps(found.record, indent=1, ensure_ascii=False))
    atomic.write_text(corpus / PAGE, page(corpus.resolve().name, found.record, found.picture))
    return found.record


def describe(corpus: Path, real: Sequence[Mapping[str, Any]] = ()) -> Diversity:
    """Counts a corpus; ``real`` are functions as ``read_tools`` returns them."""
    tools = read_repository(corpus)
    counts = Counts(tools)
    for row in trajectories(corpus):
        counts.add(row)
    if not counts.trajectories:
        raise DataError(f"{corpus}: a corpus without trajectories; make one with more tasks")
    mixing, picture = draw_map(tools, real)
    manifest = read_manifest(corpus)
    judges = {} if manifest is None else calibrate(manifest)
    return Diversity({**counts.record(), "judges": judges, "map": mixing}, picture)


def read_repository(corpus: Path) -> list[Record]:
    """The tools of a corpus; raises ``ConfigError`` where there is none."""
    path = corpus / "tools.jsonl.zst"
    if not path.exists():
        raise ConfigError(f"{path} is missing: give the folder of a corpus")
    return list(read_rows(path))


def read_tools(path: Path) -> list[Record]:
    """The functions of a JSON file of tools in OpenAI's form; raises ``DataError``."""
    try:
        found = [tool["function"] for tool in json.loads(path.read_text(encoding="utf-8"))]
        return [{"parameters": {}, **function, "name": str(function["name"])} for function in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: must be a JSON list of tools, each as {{'type': 'function', 'function': "
            f"{{'name': ..., 'parameters': ...}}}} ({type(error).__name__}: {error})"
        ) from error
