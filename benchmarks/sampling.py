"""Drawing tokens for the rows of a step: our kernel against the reference in torch.

    python -m benchmarks.sampling

32 rows of 49,152 logits in bfloat16, as a step of the engine draws them (random numbers and records
in Python are part of it). The recorded row is the slowest case. Row: serve.sampling_ms.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.results import Reference, record
from selenite.clock import SystemClock
from selenite.errors import NonFiniteError
from selenite.ops import native
from selenite.ops.sampling import Drawn, Row, draw_by_torch, draw_rows
from selenite.types import SamplingParams

NUM_ROWS, VOCAB_SIZE = 32, 49_152
CASES = {
    "greedy": SamplingParams(temperature=0),
    "temperature 1": SamplingParams(),
    "temperature 0.7": SamplingParams(temperature=0.7),
    "top_p 0.9": SamplingParams(top_p=0.9),
    "top_p 0.999": SamplingParams(top_p=0.999),
    "top_k 50": SamplingParams(top_k=50),
    "top_k 5000": SamplingParams(top_k=5000),
    "min_p 0.02": SamplingParams(min_p=0.02),
    "temperature 0.7, top_k 50, top_p 0.9": SamplingParams(temperature=0.7, top_k=50, top_p=0.9),
    "log-probabilities, 5 likeliest": SamplingParams(logprobs=5),
    "temperature 0.7, top_p 0.9, log-probabilities, 20 likeliest": SamplingParams(
        temperature=0.7, top_p=0.9, logprobs=20
    ),
}
SPREADS = {"flat": 1.0, "peaked": 3.0}
"""Standard deviation of the logits. Of flat ones top_p keeps most of the vocabulary: the worst case
of a filter. Models' are peaked."""


def step(params: SamplingParams, spread: float) -> list[Row]:
    """Rows of one step."""
    generator = torch.Generator().manual_seed(0)
    logits_BV = (torch.randn(NUM_ROWS, VOCAB_SIZE, generator=generator) * spread).bfloat16()
    return [
        Row(logits_V, params, i, 100, None if params.logprobs is None else logits_V)
        for i, logits_V in enumerate(logits_BV)
    ]


def draw_all_by_torch(rows: Sequence[Row]) -> list[Drawn | NonFiniteError]:
    return [draw_by_torch(row) for row in rows]


def least_ms(calls: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The least of many for each call: what it takes when nothing else runs. They are timed in
    turn, so that a busy minute of the machine is not one call's alone."""
    clock = SystemClock()
    least = dict.fromkeys(calls, math.inf)
    for _ in range(runs):
        for name, call in calls.items():
            start = clock.now()
            call()
            least[name] = min(least[name], (clock.now() - start) * 1e3)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="calls of the kernel for each case")
    parser.add_argument("--torch-runs", type=int, default=3, help="the same of the reference")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-record", action="store_true", help="print the table alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not native.is_available():
        raise SystemExit(f"no kernels to measure: {native.availability().reason}")
    steps = {
        f"{name} ({spread_name})": step(params, spread)
        for name, params in CASES.items()
        for spread_name, spread in SPREADS.items()
    }
    ours = least_ms(
        {name: partial(draw_rows, rows) for name, rows in steps.items()}, arguments.runs
    )
    references = {name: partial(draw_all_by_torch, rows) for name, rows in steps.items()}
    torchs = least_ms(references, arguments.torch_runs)
    table = Table("case", "ms", "torch ms", "torch / ours")
    for name in steps:
        ratio = torchs[name] / ours[name]
        table.add_row(name, f"{ours[name]:.2f}", f"{torchs[name]:.1f}", f"{ratio:.0f}")
    Console(width=120).print(table)
    if arguments.no_record:
        return
    slowest = max(ours, key=lambda name: ours[name])
    value = ours[slowest]
    record(
        "serve.sampling_ms",
        f"Drawing a token for {NUM_ROWS} rows of {VOCAB_SIZE} logits, slowest of the cases",
        value,
        "ms",
        low=value * 0.6,
        high=value * 1.6,
        runs=arguments.runs,
        target="<= 2",
        reference=Reference(name="the same in torch", value=torchs[slowest], source="same run"),
        command="python -m benchmarks.sampling",
        note=f"bfloat16, {arguments.threads} threads; {slowest}; least of {arguments.runs} calls",
    )


if __name__ == "__main__":
    main()
