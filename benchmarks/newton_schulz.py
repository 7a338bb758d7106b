"""Newton-Schulz of all matrices of one shape together, against one matrix at a time.

    python -m benchmarks.newton_schulz

Times both in turn, many times, on the shapes of 16 matrices of 128 x 256 (the recorded row) and on
those of the preset ``nano``. Row: optim.batched_ns_vs_loop.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.results import record
from selenite.clock import SystemClock
from selenite.model.config import preset
from selenite.model.transformer import Transformer
from selenite.ops.newton_schulz import coefficients, newton_schulz
from selenite.optim.build import OptimConfig, build_groups
from selenite.runtime import choose_dtype, torch_dtype

ROW_SHAPE = (16, 128, 256)


def nano_shapes() -> list[tuple[int, int, int]]:
    """Number of matrices, rows and columns of what Muon orthogonalises in the preset ``nano``."""
    with torch.device("meta"):
        model = Transformer(preset("nano"))
    count: Counter[tuple[int, int]] = Counter()
    for group in build_groups(model, OptimConfig()):
        for param in group.params if group.kind == "muon" else ():
            count[param.shape[-2], param.shape[-1]] += param[..., 0, 0].numel()
    return [(num, rows, columns) for (rows, columns), num in count.most_common()]


def seconds(call: Callable[[], object]) -> float:
    clock = SystemClock()
    start = clock.now()
    call()
    return clock.now() - start


def compare(
    shape: tuple[int, int, int], dtype: torch.dtype, runs: int
) -> list[tuple[float, float]]:
    """(batched, loop) seconds of ``runs`` rounds; each round times both, the order alternating."""
    G_KAB = torch.randn(shape)
    steps = coefficients("quintic")

    def batched() -> Tensor:
        return newton_schulz(G_KAB, steps, dtype)

    def loop() -> list[Tensor]:
        return [newton_schulz(G_AB, steps, dtype) for G_AB in G_KAB]

    batched(), loop()
    rounds = []
    for i in range(runs):
        first, second = (batched, loop) if i % 2 else (loop, batched)
        times = seconds(first), seconds(second)
        rounds.append(times if i % 2 else times[::-1])
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=31, help="rounds for each shape")
    runs: int = parser.parse_args().runs
    dtype = torch_dtype(choose_dtype().value)
    table = Table("matrices", "rows", "columns", "batched ms", "loop ms", "loop / batched")
    for shape in [ROW_SHAPE, *nano_shapes()]:
        rounds = compare(shape, dtype, runs)
        batched, loop = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(loop / batched for batched, loop in rounds)
        table.add_row(*map(str, shape), f"{batched * 1e3:.2f}", f"{loop * 1e3:.2f}", f"{ratio:.2f}")
        if shape == ROW_SHAPE:
            row_ratios = sorted(loop / batched for batched, loop in rounds)
    Console().print(table)
    record(
        "optim.batched_ns_vs_loop",
        "Newton-Schulz of 16 matrices of 128 x 256: time of a loop over time of one batch",
        statistics.median(row_ratios),
        "ratio",
        low=row_ratios[0] * 0.9,
        high=row_ratios[-1] * 1.1,
        runs=runs,
        target=">= 1",
        reference=None,
        command="python -m benchmarks.newton_schulz",
        note=f"{dtype}, {torch.get_num_threads()} threads; the range is that of single rounds",
    )


if __name__ == "__main__":
    main()
