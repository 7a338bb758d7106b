"""What a model that was taught to call tools scores, between floors and ceiling: rows of it all.

    python -m experiments.agentic_scores MODEL [BASE]

MODEL is a directory that ``selenite sft`` wrote, BASE the one that it began with. BFCL is asked
greedily with and without a grammar for calls, and the rows are without; our worlds with one.
Answers are kept under runs/eval, so that a second call goes on. Rows: calls.valid, bfcl.*,
worlds.*, sft.plain_loss.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import Reference, record
from selenite import runtime
from selenite.eval.bfcl.suite import bfcl
from selenite.eval.measure import Target, measure
from selenite.eval.measure_worlds import bounds as world_bounds
from selenite.eval.measure_worlds import measure_worlds
from selenite.eval.prose import read_prose
from selenite.eval.scoreboard import Result, bounds, write
from selenite.eval.statistics import wilson
from selenite.eval.worlds import cases
from tests.fixtures.smollm2 import smollm2

OUT = Path("runs/eval")
TAUGHT = "SmolLM2-135M taught by configs/smollm2-sft.toml"
TARGETS = {
    "simple_python": 0.40, "multiple": 0.40, "parallel": 0.25, "parallel_multiple": 0.15,
    "live_simple": 0.20, "live_multiple": 0.15, "irrelevance": 0.70, "live_relevance": 0.70,
}  # fmt: skip
NAMES = {"live_relevance": "relevance"}
MARKS = {
    "simple_python": 0.616, "multiple": 0.635, "parallel": 0.390, "parallel_multiple": 0.295,
}  # fmt: skip
"""Of FunctionGemma-270M, by its model card."""
EACH = 100  # tasks of each axis


def main(arguments: Sequence[str]) -> None:
    directory, *others = map(Path, arguments)
    base = others[0] if others else smollm2()
    runtime.apply_threads()
    _bfcl(directory)
    _worlds(directory)
    _prose(directory, base)


def _bfcl(directory: Path) -> None:
    suite, target = bfcl(), Target(directory, None)
    guided, free = measure(suite, target, OUT, (True, False), 32, 512)
    limits = bounds(suite)
    write(OUT / target.folder / "bfcl.json", suite, [*limits[:-1], guided, free, limits[-1]])
    retriever = next(result for result in limits if result.agent == "retriever")
    for name, threshold in TARGETS.items():
        found = free.scores[name]
        low, high = wilson(found.right, found.total)
        beside = f"FunctionGemma-270M {MARKS[name]}; " if name in MARKS else ""
        record(
            f"bfcl.{NAMES.get(name, name)}",
            f"{TAUGHT}, BFCL {name}: share of right answers, greedy, without a grammar",
            found.share,
            "fraction",
            low=low,
            high=high,
            runs=found.total,
            target=f">= {threshold}",
            reference=Reference(
                name="a retriever without learning",
                value=retriever.scores[name].share,
                source="same run",
            ),
            command=f"python -m experiments.agentic_scores {directory}",
            note=f"{beside}with a grammar {guided.scores[name].share:.3f}",
        )
    made = sum(found.calls for found in free.scores.values())
    low, high = wilson(round(_valid(free) * made), made)
    record(
        "calls.valid",
        f"{TAUGHT}, all of BFCL: share of calls that parse, name an offered tool and fit its "
        "schema, without a grammar",
        _valid(free),
        "fraction",
        low=low,
        high=high,
        runs=made,
        target=">= 0.99",
        reference=Reference(name="with a grammar", value=_valid(guided), source="same run"),
        command=f"python -m experiments.agentic_scores {directory}",
    )


def _valid(result: Result) -> float:
    scores = result.scores.values()
    return sum(found.valid for found in scores) / max(1, sum(found.calls for found in scores))


def _worlds(directory: Path) -> None:
    known = cases(EACH)
    limits = world_bounds(known)
    target = Target(directory, None)
    found, _ = measure_worlds(known, target, OUT, 1, 0.0, True, 16, 256)
    rows = {"indomain": (("in-domain",), 0.70), "heldout": (("category", "domain"), 0.40)}
    for name, (axes, threshold) in rows.items():
        share = sum(found[axis]["pass^k"][0] for axis in axes) / len(axes)
        tasks = sum(found[axis]["tasks"] for axis in axes)
        low, high = wilson(round(share * tasks), tasks)
        null = sum(limits["null"][axis]["pass^k"][0] for axis in axes) / len(axes)
        record(
            f"worlds.{name}.pass1",
            f"{TAUGHT}, our worlds, {' and '.join(axes)}: share of tasks passed, greedy, with a "
            "grammar for calls",
            share,
            "fraction",
            low=low,
            high=high,
            runs=tasks,
            target=f">= {threshold}",
            reference=Reference(name="an agent that does nothing", value=null, source="same run"),
            command=f"python -m experiments.agentic_scores {directory}",
        )


def _prose(directory: Path, base: Path) -> None:
    dtype = runtime.torch_dtype(runtime.choose_dtype("auto").value)
    own, known = read_prose(directory, dtype), read_prose(base, dtype)
    mean, low, high = own.worse_than(known)
    record(
        "sft.plain_loss",
        f"{TAUGHT}: loss on the text of Python's help topics over its base's, minus one",
        mean,
        "fraction",
        low=low,
        high=high,
        runs=len(own.losses),
        target="<= 0.01",
        reference=Reference(name="the base's loss, nats", value=known.loss, source="same run"),
        command=f"python -m experiments.agentic_scores {directory}",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
