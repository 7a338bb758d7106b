"""Decoding in float32, as processors with AVX2 alone do: our products and tapes against torch's.

    python -m benchmarks.float_decode

One engine serves SmolLM2-135M-Instruct; decode steps go by turns through our product for few rows
(played from a tape) and through torch's. Row: serve.float_decode.vs_torch.
"""

from __future__ import annotations

import statistics

from benchmarks.decode_steps import SHORT, decoding, end_all
from benchmarks.results import Reference, record
from selenite.clock import SystemClock
from selenite.errors import UnsupportedError
from selenite.ops import linear, native
from selenite.runtime import apply_threads, measure_bandwidth
from selenite.serve.config import ServeConfig
from selenite.serve.engine.engine import Engine
from selenite.serve.load import load_model
from tests.fixtures.smollm2 import smollm2

COMMAND = "python -m benchmarks.float_decode"
ROW = 8  # requests of the row; the others are printed
REQUESTS, STEPS, ROUNDS = (1, 4, ROW, 16, 32), 10, 5


def milliseconds(engine: Engine, few_rows: int) -> float:
    """Of a step, with our kernels for up to ``few_rows``; a first one may record a tape."""
    clock = SystemClock()
    before, linear.FEW_ROWS = linear.FEW_ROWS, few_rows
    recorded = engine.runner._recorded
    possible, recorded._is_possible = recorded._is_possible, few_rows > 0
    try:
        engine.step()
        start = clock.now()
        for _ in range(STEPS):
            engine.step()
        return (clock.now() - start) / STEPS * 1e3
    finally:
        linear.FEW_ROWS, recorded._is_possible = before, possible


def main() -> None:
    if native.instruction_set().value != "avx2" or not native.is_available():
        raise UnsupportedError(f"float32 is torch's here: {native.instruction_set().reason}")
    apply_threads()
    loaded = load_model(ServeConfig(model=smollm2(), dtype="float32", max_running=max(REQUESTS)))
    engine = Engine(loaded.model, loaded.engine)
    ratios: list[float] = []
    note = []
    for count in REQUESTS:
        decoding(engine, count, SHORT)
        pairs = [
            (milliseconds(engine, 0), milliseconds(engine, linear.FEW_ROWS)) for _ in range(ROUNDS)
        ]
        end_all(engine)
        torchs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        note.append(f"{count}: {torchs:.0f} and {ours:.0f}")
        print(f"{count} requests: {torchs:.1f} ms a step by torch, {ours:.1f} by ours")
        if count == ROW:
            ratios = [theirs / own for theirs, own in pairs]
    record(
        "serve.float_decode.vs_torch",
        f"SmolLM2-135M-Instruct in float32 on a processor with AVX2 alone, {ROW} requests: decode "
        "steps by our product and a tape, over steps by torch's product",
        statistics.median(ratios),
        "ratio",
        low=0.7 * min(ratios),
        high=1.4 * max(ratios),
        runs=ROUNDS,
        target=None,
        reference=Reference(
            name="memory read, GB/s", value=measure_bandwidth() / 1e9, source="same run"
        ),
        command=COMMAND,
        note=f"requests: ms a step by torch and by ours; {'; '.join(note)}",
    )


if __name__ == "__main__":
    main()
