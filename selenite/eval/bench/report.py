"""What a load found out: a table for people, a file for everything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from selenite.atomic import write_text
from selenite.eval.bench.record import Record
from selenite.eval.bench.summary import LATENCIES, Summary

_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "end to end"}


def write_json(
    path: Path, run: Mapping[str, Any], summary: Summary, records: Sequence[Record]
) -> None:
    """Everything: how it was run, the summary, every request. Times are in seconds."""
    requests = [asdict(record) | {"error": record.error_kind} for record in records]
    whole = {"run": dict(run), "summary": asdict(summary), "requests": requests}
    write_text(path, json.dumps(whole, allow_nan=False, indent=1) + "\n")


def show(console: Console, title: str, summary: Summary) -> None:
    """Prints the tables and what one must know to read them."""
    console.print(title, highlight=False, markup=False)
    totals = Table(show_header=False)
    for row in _totals(summary):
        totals.add_row(*row)
    console.print(totals)
    latencies = Table(title="milliseconds", title_justify="left")
    latencies.add_column("")
    for column in ("count", "mean", "median", "p90", "p99", "largest"):
        latencies.add_column(column, justify="right")
    for name in LATENCIES:
        found = summary.latencies[name]
        if found is None:
            latencies.add_row(_NAMES[name], "0")
            continue
        seconds = (found.mean, found.median, found.p90, found.p99, found.largest)
        latencies.add_row(_NAMES[name], str(found.count), *(f"{s * 1e3:,.1f}" for s in seconds))
    console.print(latencies)
    for note in notes(summary):
        console.print(f"note: {note}", highlight=False, markup=False)


def notes(summary: Summary) -> Iterator[str]:
    """What bends a number, and by how much; what failed requests were told."""
    for kind, said in summary.error_examples.items():
        yield f"{kind}: {said[:300]}"
    if summary.counted_outputs:
        yield (
            f"{summary.counted_outputs} answers came without usage: their output tokens are counted"
            " events, too few where an event brings several tokens"
        )
    if summary.unknown_inputs:
        yield f"{summary.unknown_inputs} answers came without the prompt's tokens: as asked for"
    if summary.largest_input_error:
        yield (
            f"prompts are up to {summary.largest_input_error} tokens longer or shorter for the "
            "server than asked for (its template or first token)"
        )


def _totals(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "completed", f"{summary.num_completed} of {summary.num_requests}"
    for kind, count in summary.errors.items():
        yield f"failed: {kind}", str(count)
    yield "duration", f"{summary.duration:,.2f} s"
    cached = "" if summary.cached_tokens is None else f", {summary.cached_tokens:,} from the cache"
    yield "input tokens", f"{summary.input_tokens:,}{cached}"
    yield "output tokens", f"{summary.output_tokens:,}"
    rates = {
        "requests": (summary.request_throughput, "/s"),
        "input": (summary.input_throughput, "tokens/s"),
        "output": (summary.output_throughput, "tokens/s"),
        "input and output": (summary.total_throughput, "tokens/s"),
    }
    for name, (rate, unit) in rates.items():
        yield name, "none" if rate is None else f"{rate:,.2f} {unit}"
    if summary.goodput is not None and summary.attainment is not None:
        goals = " ".join(f"{_NAMES[k]} <= {v * 1e3:g} ms" for k, v in summary.goals.items())
        yield "goodput", f"{summary.goodput:,.2f} /s, {summary.attainment:.1%} within {goals}"
    yield "at once, at most", str(summary.peak_concurrency)
    yield "sent late, at most", f"{summary.largest_lateness * 1e3:,.1f} ms"
