"""The memory plan against what the process of two training steps really held.

    python -m benchmarks.memory_plan

Three presets with configs/nano.toml's settings, each at a size for a laptop, in the dtype that this
machine trains in. Row: train.memory_plan_error.
"""

from __future__ import annotations

import argparse
import statistics

from rich.console import Console
from rich.table import Table

from benchmarks.results import ROOT, record
from selenite.config import load
from selenite.ops import allocator
from selenite.runtime import apply_threads, choose_dtype, mebibytes, torch_dtype
from selenite.train.memory import plan_memory, process_bytes, warm_up
from selenite.train.memory_measure import measure_memory
from selenite.train.pretrain_config import PretrainConfig

RUNS: dict[str, dict[str, object]] = {
    "nano": {},
    "dense30m": {"seq_len": 1024, "batch_tokens": 16_384},
    "smollm2-135m": {"seq_len": 1024, "batch_tokens": 4096, "micro_batch_tokens": 4096},
}
"""Each preset's changes to ``[train]``."""


def run_config(name: str, tokens: int | None) -> PretrainConfig:
    """The config of a preset, with ``tokens`` a step if given."""
    train = RUNS[name] | {"device": "cpu"}
    if tokens is not None:
        train |= {"batch_tokens": tokens, "micro_batch_tokens": tokens}
    return load(
        PretrainConfig,
        ROOT / "configs" / "nano.toml",
        [f"model.preset={name}", *(f"train.{key}={value}" for key, value in train.items())],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each preset")
    parser.add_argument("--tokens", type=int, help="of a step; given: no row")
    arguments = parser.parse_args()
    apply_threads()
    allocator.install()
    dtype = choose_dtype().value
    warm_up(torch_dtype(dtype))
    process = process_bytes()  # before plans are made: they leave memory behind
    configs = {name: run_config(name, arguments.tokens) for name in RUNS}
    planned = {name: plan_memory(config, process).total for name, config in configs.items()}
    held: dict[str, list[int]] = {name: [] for name in configs}
    for _ in range(arguments.rounds):
        for name, config in configs.items():
            held[name].append(measure_memory(config).peak)
            print(
                f"{name}: {mebibytes(held[name][-1])}, plan {mebibytes(planned[name])}", flush=True
            )
    table = Table("preset", "plan", "held", "range", "plan over held")
    for name, peaks in held.items():
        median = statistics.median(peaks)
        table.add_row(
            name,
            mebibytes(planned[name]),
            mebibytes(round(median)),
            f"{mebibytes(min(peaks))}-{mebibytes(max(peaks))}",
            f"{planned[name] / median - 1:+.1%}",
        )
    Console().print(table)
    errors = {
        name: abs(planned[name] / statistics.median(peaks) - 1) for name, peaks in held.items()
    }
    if arguments.tokens is not None:
        return
    record(
        "train.memory_plan_error",
        "Planned memory against the most that two training steps held: the largest relative error "
        "of nano, dense30m and smollm2-135m",
        max(errors.values()),
        "fraction",
        low=0.0,
        # Absolute: another machine's libraries are tens of megabytes larger or smaller.
        high=max(errors.values()) + 0.03,
        runs=arguments.rounds,
        target="<= 0.1",
        reference=None,
        command="python -m benchmarks.memory_plan",
        note=f"{dtype}; " + ", ".join(f"{name} {error:.3f}" for name, error in errors.items()),
    )


if __name__ == "__main__":
    main()
