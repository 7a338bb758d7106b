"""The engine's log-probabilities against the trainer's over some updates of reinforcement learning.

    python -m benchmarks.rl_mismatch --model runs/nano-sft

A few updates of the quickstart's second model in conversations of three turns: prompts that the
engine computes once for a group, pages that later turns find in the cache, groups packed behind one
prompt in the trainer (not in batch-invariant mode, which has no such path). In fast mode once with
the trainer's own routing and once with the engine's replayed. Each run is a process of its own.
Rows: rl.mismatch.invariant, rl.mismatch.fast.float32, rl.mismatch.fast.bfloat16.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.results import ROOT, Reference, record
from selenite.errors import ConfigError

UPDATES = 3
RUNS = (("fast", "own"), ("fast", "replay"), ("invariant", "own"))
Found = Mapping[str, float]
Key = tuple[str, str, str]  # dtype, mode, routing


def child(model: Path, dtype: str, mode: str, routing: str, out_dir: Path) -> Found:
    """The distribution of the gaps of a run in this process, in nats."""
    from selenite.clock import SystemClock
    from selenite.config import validate
    from selenite.rl.config import RlConfig
    from selenite.rl.run import open_task
    from selenite.runtime import torch_dtype
    from selenite.train.run import decide
    from selenite.train.step import train_step

    tables: dict[str, Any] = {
        "train": {
            "init_from": str(model),
            "out_dir": str(out_dir),
            "steps": UPDATES,
            "seq_len": 1024,
            "micro_batch_tokens": 2048,
            "batch_tokens": 2048,
            "dtype": dtype,
            "device": "cpu",
            "batch_invariant": mode == "invariant",
        },
        # Its rewards are a hash of what was said: every group has something to learn.
        "environments": [{"kind": "python", "factory": "tests.fixtures.talks:Talks"}],
        "rollouts": {"groups": 3, "size": 4, "routing": routing},
        "optim": {"lr": 1e-3},
        "schedule": {"kind": "constant", "warmup_fraction": 0.0},
    }
    config = validate(RlConfig, tables, "benchmark")
    decisions = decide(config.train)
    gaps, differing = list[np.ndarray](), list[float]()
    with ExitStack() as stack:
        task = open_task(config, "cpu", torch_dtype(dtype), SystemClock(), stack)
        for step in range(UPDATES):
            metrics = train_step(task, step)
            gaps += [gap_T.numpy() for gap_T in task.gaps]
            differing.append(metrics.get("routing_differs", 0.0))
            print(f"{step}: {metrics['mismatch_max']:.2g}", file=sys.stderr, flush=True)
    assert decisions["dtype"].value == dtype
    gaps_T = np.concatenate(gaps)
    return {
        "tokens": float(len(gaps_T)),
        "median": float(np.median(gaps_T)),
        "p99": float(np.quantile(gaps_T, 0.99)),
        "max": float(gaps_T.max()),
        "differing": float(np.mean(differing)),
    }


def measure(model: Path, key: Key) -> Found:
    """``child`` in a process of its own."""
    with tempfile.TemporaryDirectory() as out_dir:
        command = [sys.executable, "-m", "benchmarks.rl_mismatch", "--model", str(model)]
        command += ["--child", *key, out_dir]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    found: Found = json.loads(done.stdout)
    return found


def show(found: Mapping[Key, Found]) -> None:
    """Every run."""
    table = Table(*("dtype", "mode", "routing", "tokens", "median", "p99", "max", "differing"))
    for key, each in found.items():
        gaps = (f"{each[name]:.2e}" for name in ("median", "p99", "max"))
        differing = f"{each['differing']:.3%}" if key[2] == "replay" else "-"
        table.add_row(*key, f"{each['tokens']:.0f}", *gaps, differing)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "runs" / "nano-sft")
    parser.add_argument("--child", nargs=4, metavar=("DTYPE", "MODE", "ROUTING", "OUT_DIR"))
    arguments = parser.parse_args()
    if not (arguments.model / "config.json").is_file():
        raise ConfigError(f"{arguments.model} is no model: run make quickstart, or give --model")
    if arguments.child:
        dtype, mode, routing, out_dir = arguments.child
        print(json.dumps(child(arguments.model, dtype, mode, routing, Path(out_dir))))
        return
    found: dict[Key, Found] = {}
    for dtype, (mode, routing) in itertools.product(("float32", "bfloat16"), RUNS):
        found[dtype, mode, routing] = measure(arguments.model, (dtype, mode, routing))
    show(found)
    command = "python -m benchmarks.rl_mismatch"
    invariant = {key: each for key, each in found.items() if key[1] == "invariant"}
    record(
        "rl.mismatch.invariant",
        "Batch-invariant mode: largest difference of a sampled token's log-probability between "
        f"engine and trainer over {UPDATES} updates of reinforcement learning (nano, turns, "
        "prompts computed once, 2 dtypes)",
        max(each["max"] for each in invariant.values()),
        "nats",
        low=0.0,
        high=0.0,
        runs=len(invariant),
        target="== 0",
        reference=None,
        command=command,
        note=f"{sum(each['tokens'] for each in invariant.values()):.0f} tokens",
    )
    for dtype in ("float32", "bfloat16"):
        own, replayed = (found[dtype, "fast", routing] for routing in ("own", "replay"))
        record(
            f"rl.mismatch.fast.{dtype}",
            f"Fast mode, {dtype}: 99 of 100 sampled tokens' log-probabilities differ by less "
            "between engine and trainer (the same runs, the trainer's own routing)",
            own["p99"],
            "nats",
            low=0.0,
            high=3 * own["p99"],
            runs=1,
            target=None,
            reference=Reference(name="routing replayed", value=replayed["p99"], source="same run"),
            command=command,
            note=f"median {own['median']:.1e}, largest {own['max']:.1e}; replayed: median "
            f"{replayed['median']:.1e}, largest {replayed['max']:.1e}, where the trainer would "
            f"route {replayed['differing']:.2%} of tokens and layers otherwise",
        )


if __name__ == "__main__":
    main()
