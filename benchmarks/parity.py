"""The engine's log-probabilities against the trainer's, in both modes, on nano and SmolLM2.

    python -m benchmarks.parity --nano runs/nano

Runs ``selenite eval parity`` for each model, dtype and mode in a process of its own. nano is what
``make quickstart`` trains; SmolLM2-135M-Instruct comes out of its wheel. Rows:
parity.invariant.max_abs, parity.fast.nano, parity.fast.smollm2, parity.fast.bfloat16_of_rounding,
parity.invariant.slowdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results import ROOT, Reference, record
from selenite.errors import ConfigError
from tests.fixtures.smollm2 import smollm2

Key = tuple[str, str, str]  # model, dtype, mode
TARGETS = {"nano": 1e-5, "smollm2": 5e-5}
"""Of fast mode in float32, in nats."""


def measure(directory: Path, dtype: str, mode: str) -> dict[str, Any]:
    """What the command found."""
    command = [sys.executable, "-m", "selenite", "eval", "parity", str(directory), "--json"]
    command += ["--dtype", dtype, *(["--batch-invariant"] if mode == "invariant" else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if not done.stdout:
        raise ConfigError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def largest(found: dict[str, Any]) -> float:
    """Of all comparisons."""
    return max(each["largest"] for each in found["differences"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nano", type=Path, default=ROOT / "runs" / "nano")
    arguments = parser.parse_args()
    if not (arguments.nano / "config.json").is_file():
        raise ConfigError(f"{arguments.nano} is no model: run make quickstart, or give --nano")
    models = {"nano": arguments.nano, "smollm2": smollm2()}
    found: dict[Key, dict[str, Any]] = {}
    for key in itertools.product(models, ("float32", "bfloat16"), ("fast", "invariant")):
        name, dtype, mode = key
        found[key] = measure(models[name], dtype, mode)
        print(f"{' '.join(key)}: largest difference {largest(found[key]):.2e}", flush=True)
    show(found)
    invariant = {key: largest(each) for key, each in found.items() if key[2] == "invariant"}
    command = "python -m benchmarks.parity"
    compared = len(next(iter(found.values()))["differences"])
    record(
        "parity.invariant.max_abs",
        "Batch-invariant mode: largest difference of a token's log-probability between engine and "
        f"trainer, cached and fresh, alone and together, page sizes, chunk "
        f"sizes, preempted and not ({compared} comparisons x 2 models x 2 dtypes)",
        max(invariant.values()),
        "nats",
        low=0.0,
        high=0.0,
        runs=len(invariant),
        target="== 0",
        reference=None,
        command=command,
    )
    for name, target in TARGETS.items():
        value = largest(found[name, "float32", "fast"])
        low_precision = largest(found[name, "bfloat16", "fast"])
        record(
            f"parity.fast.{name}",
            f"Fast mode, {name} in float32: largest difference of a token's log-probability over "
            "the same comparisons",
            value,
            "nats",
            low=0.0,
            high=target,
            runs=1,
            target=f"<= {target:.0e}".replace("e-0", "e-"),
            reference=Reference(name="in bfloat16", value=low_precision, source="same run"),
            command=command,
        )
    low = {name: found[name, "bfloat16", "fast"] for name in models}
    means = {name: max(line["mean"] for line in low[name]["differences"]) for name in models}
    shares = {name: means[name] / low[name]["rounding"]["mean"] for name in models}
    record(
        "parity.fast.bfloat16_of_rounding",
        "Fast mode in bfloat16: mean difference (of the comparison with the largest) over the mean "
        "that bfloat16 makes in the trainer against float32, on the same tokens (the larger of "
        "nano and SmolLM2)",
        max(shares.values()),
        "of the rounding's",
        low=0.0,
        high=1.5 * max(shares.values()),
        runs=len(shares),
        target="<= 1",
        reference=None,
        command=command,
        note="; ".join(
            f"{name}: mean {means[name]:.4f} over {each['rounding']['mean']:.4f} nats, largest "
            f"{largest(each):.2f} over {each['rounding']['largest']:.2f}"
            for name, each in low.items()
        ),
    )
    slower = [
        found[name, dtype, "invariant"]["seconds"] / found[name, dtype, "fast"]["seconds"]
        for name, dtype in itertools.product(models, ("float32", "bfloat16"))
    ]
    record(
        "parity.invariant.slowdown",
        "Batch-invariant mode: time of the same batch over fast mode's (nano and SmolLM2, both "
        "dtypes, prompts and completions)",
        statistics.median(slower),
        "x fast mode",
        low=0.5 * min(slower),
        high=2 * max(slower),
        runs=len(slower),
        target=None,
        reference=None,
        command=command,
        note=f"from {min(slower):.1f} to {max(slower):.1f}",
    )


def show(found: dict[Key, dict[str, Any]]) -> None:
    """Every comparison of every run."""
    table = Table(*("model", "dtype", "mode", "against one batch", "largest", "mean", "parted"))
    for key, each in found.items():
        for line in [*each["differences"], *([each["rounding"]] if each["rounding"] else [])]:
            numbers = f"{line['largest']:.1e}", f"{line['mean']:.1e}", str(line["other_tokens"])
            table.add_row(*key, line["name"], *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
