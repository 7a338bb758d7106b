"""What a model that was taught to call tools scores, between floors and ceiling: rows of it all.

    python -m experiments.agentic_scores [ADAPTER [BASE]]

ADAPTER is a folder that ``experiments.publish_adapter`` made (the published one, if none is given),
BASE the model that it belongs to; what is measured is the model that ``selenite convert`` makes of
the two. BFCL is asked greedily with and without a grammar for calls, and the rows are without; our
worlds with one. Answers are kept under runs/eval, so that a second call goes on. What was measured
of a model is kept in dev/results/agentic by the seed of its run, and the rows are means over all
seeds that are there, with Wilson's interval for the questions of one.
Rows: calls.valid, bfcl.*, worlds.*, sft.plain_loss.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, Reference, record
from experiments.publish_adapter import PUBLISHED
from selenite import atomic, runtime
from selenite.eval.bfcl.suite import bfcl
from selenite.eval.measure import Target, measure
from selenite.eval.measure_worlds import bounds as world_bounds
from selenite.eval.measure_worlds import measure_worlds
from selenite.eval.prose import read_prose
from selenite.eval.scoreboard import Result, bounds, write
from selenite.eval.statistics import wilson
from selenite.eval.worlds import cases
from selenite.model.convert import merge
from selenite.model.lora_files import WEIGHTS
from tests.fixtures.smollm2 import smollm2

OUT = Path("runs/eval")
SEEDS = ROOT / "dev" / "results" / "agentic"
TAUGHT = "SmolLM2-135M taught by configs/smollm2-sft.toml"
COMMAND = "python -m experiments.agentic_scores"
TARGETS = {
    "simple_python": 0.40, "multiple": 0.40, "parallel": 0.25, "parallel_multiple": 0.15,
    "live_simple": 0.20, "live_multiple": 0.15, "irrelevance": 0.70, "live_relevance": 0.70,
}  # fmt: skip
NAMES = {"live_relevance": "relevance"}
MARKS = {
    "simple_python": 0.616, "multiple": 0.635, "parallel": 0.390, "parallel_multiple": 0.295,
}  # fmt: skip
"""Of FunctionGemma-270M, by its model card."""
WORLDS = {"indomain": (("in-domain",), 0.70), "heldout": (("category", "domain"), 0.40)}
EACH = 100  # tasks of each axis

Found = dict[str, Any]
"""What was measured of the model of one seed."""


def main(arguments: Sequence[str]) -> None:
    adapter, *others = map(Path, arguments) if arguments else (ROOT / PUBLISHED,)
    base = others[0] if others else smollm2()
    runtime.apply_threads()
    digest = atomic.sha256(adapter / WEIGHTS)
    directory = Path("runs") / f"{adapter.name}-{digest[:8]}"
    if not directory.exists():
        merge(base, adapter, directory)
    target = Target(directory, None)
    config = tomllib.loads((adapter / "recipe.toml").read_text(encoding="utf-8"))
    path = SEEDS / f"seed-{config['train'].get('seed', 0)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: Found = {"adapter": digest, "fingerprint": target.fingerprint}
    # The shortest first: each is there once it is measured.
    found["prose"] = _prose(directory, base)
    _keep(path, found)
    _record_prose(_seeds())
    found["worlds"] = _worlds(target)
    _keep(path, found)
    for name in WORLDS:
        _record_worlds(name, _seeds())
    found |= _bfcl(target)
    _keep(path, found)
    for name in TARGETS:
        _record_bfcl(name, _seeds())
    _record_valid(_seeds())


def _keep(path: Path, found: Found) -> None:
    atomic.write_text(path, json.dumps(found, indent=1) + "\n")


def _seeds() -> list[Found]:
    return [json.loads(file.read_bytes()) for file in sorted(SEEDS.glob("seed-*.json"))]


def _bfcl(target: Target) -> Found:
    suite = bfcl()
    guided, free = measure(suite, target, OUT, (True, False), 32, 512)
    limits = bounds(suite)
    write(OUT / target.folder / "bfcl.json", suite, [*limits[:-1], guided, free, limits[-1]])
    retriever = next(result for result in limits if result.agent == "retriever")
    agents = {"free": free, "guided": guided, "retriever": retriever}
    return {name: _scores(result) for name, result in agents.items()}


def _scores(result: Result) -> Found:
    return {name: score.record() for name, score in result.scores.items()}


def _worlds(target: Target) -> Found:
    known = cases(EACH)
    found, _ = measure_worlds(known, target, OUT, 1, 0.0, True, 16, 256)
    return {"taught": found, "null": world_bounds(known)["null"]}


def _prose(directory: Path, base: Path) -> Found:
    dtype = runtime.torch_dtype(runtime.choose_dtype("auto").value)
    own, known = read_prose(directory, dtype), read_prose(base, dtype)
    mean, low, high = own.worse_than(known)
    return {"mean": mean, "low": low, "high": high, "base": known.loss, "windows": len(own.losses)}


def _mean(seeds: Sequence[Found], share: Callable[[Found], float]) -> tuple[float, str]:
    """Over seeds, and the seeds' own values for the note."""
    values = [share(found) for found in seeds]
    return sum(values) / len(values), f"by seed {', '.join(f'{value:.3f}' for value in values)}"


def _record_bfcl(name: str, seeds: Sequence[Found]) -> None:
    mean, by_seed = _mean(seeds, lambda found: found["free"][name]["share"])
    guided, _ = _mean(seeds, lambda found: found["guided"][name]["share"])
    total = seeds[0]["free"][name]["total"]
    low, high = wilson(round(mean * total), total)
    beside = f"FunctionGemma-270M {MARKS[name]}; " if name in MARKS else ""
    record(
        f"bfcl.{NAMES.get(name, name)}",
        f"{TAUGHT}, BFCL {name}: share of right answers, greedy, without a grammar",
        mean,
        "fraction",
        low=low,
        high=high,
        runs=len(seeds),
        target=f">= {TARGETS[name]}",
        reference=Reference(
            name="a retriever without learning",
            value=seeds[0]["retriever"][name]["share"],
            source="same run",
        ),
        command=COMMAND,
        note=f"{beside}with a grammar {guided:.3f}; {by_seed}; {total} questions",
    )


def _valid(scores: Found) -> float:
    calls = sum(score["calls"] for score in scores.values())
    return sum(score["valid"] for score in scores.values()) / max(1, calls)


def _record_valid(seeds: Sequence[Found]) -> None:
    mean, by_seed = _mean(seeds, lambda found: _valid(found["free"]))
    guided, _ = _mean(seeds, lambda found: _valid(found["guided"]))
    made = sum(score["calls"] for score in seeds[0]["free"].values())
    low, high = wilson(round(mean * made), made)
    record(
        "calls.valid",
        f"{TAUGHT}, all of BFCL: share of calls that parse, name an offered tool and fit its "
        "schema, without a grammar",
        mean,
        "fraction",
        low=low,
        high=high,
        runs=len(seeds),
        target=">= 0.99",
        reference=Reference(name="with a grammar", value=guided, source="same run"),
        command=COMMAND,
        note=f"{by_seed}; {made} calls",
    )


def _record_worlds(name: str, seeds: Sequence[Found]) -> None:
    axes, threshold = WORLDS[name]

    def share(results: Found) -> float:
        return float(sum(results[axis]["pass^k"][0] for axis in axes) / len(axes))

    mean, by_seed = _mean(seeds, lambda found: share(found["worlds"]["taught"]))
    tasks = sum(seeds[0]["worlds"]["taught"][axis]["tasks"] for axis in axes)
    low, high = wilson(round(mean * tasks), tasks)
    record(
        f"worlds.{name}.pass1",
        f"{TAUGHT}, our worlds, {' and '.join(axes)}: share of tasks passed, greedy, with a "
        "grammar for calls",
        mean,
        "fraction",
        low=low,
        high=high,
        runs=len(seeds),
        target=f">= {threshold}",
        reference=Reference(
            name="an agent that does nothing",
            value=share(seeds[0]["worlds"]["null"]),
            source="same run",
        ),
        command=COMMAND,
        note=f"{by_seed}; {tasks} tasks",
    )


def _record_prose(seeds: Sequence[Found]) -> None:
    mean, by_seed = _mean(seeds, lambda found: found["prose"]["mean"])
    record(
        "sft.plain_loss",
        f"{TAUGHT}: loss on the text of Python's help topics over its base's, minus one",
        mean,
        "fraction",
        low=min(found["prose"]["low"] for found in seeds),
        high=max(found["prose"]["high"] for found in seeds),
        runs=len(seeds),
        target="<= 0.01",
        reference=Reference(
            name="the base's loss, nats", value=seeds[0]["prose"]["base"], source="same run"
        ),
        command=COMMAND,
        note=f"{by_seed}; {seeds[0]['prose']['windows']} windows",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
