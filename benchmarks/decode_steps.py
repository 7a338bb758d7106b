"""Decode steps of our engine from inside: what is not kernels, and what a long context costs.

    python -m benchmarks.decode_steps

32 requests of SmolLM2-135M-Instruct decode together; the kernels of each step are timed, and the
rest is scheduling and Python. Then two engines decode one request each by turns, one with few
tokens before it and one with 8,000. Rows: serve.step_overhead_ms, serve.decode8k.over_bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from benchmarks.results import Reference, record
from selenite.clock import SystemClock
from selenite.model.accounting import cache_bytes_per_token
from selenite.ops import native
from selenite.ops.tape import Tape
from selenite.runtime import measure_bandwidth
from selenite.serve.config import ServeConfig
from selenite.serve.engine.engine import Engine
from selenite.serve.engine.request import Request
from selenite.serve.load import load_model
from selenite.types import SamplingParams
from tests.fixtures.smollm2 import smollm2

COMMAND = "python -m benchmarks.decode_steps"
REQUESTS, SHORT, LONG = 32, 64, 8000  # tokens of a prompt
STEPS, WARM_UP = 100, 20
ROUNDS = 10


class Timed:
    """A function, and what its calls took since it was last asked."""

    def __init__(self, function: Callable[..., Any], clock: SystemClock) -> None:
        self._function, self._clock = function, clock
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = self._clock.now()
        result = self._function(*arguments)
        self.seconds += self._clock.now() - start
        return result

    def taken(self) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def decoding(engine: Engine, requests: int, length: int) -> None:
    """Lets so many requests get to where they decode; they go on for longer than is measured."""
    params = SamplingParams(temperature=0, max_tokens=STEPS + WARM_UP + 20, ignore_eos=True)
    for i in range(requests):
        prompt = tuple(1000 + (7 * i + 13 * j) % 30_000 for j in range(length))
        engine.add(Request(str(i), prompt, params))
    while not all(r.is_prefilled for r in (*engine.scheduler.waiting, *engine.scheduler.running)):
        engine.step()
    for _ in range(WARM_UP):
        engine.step()


def end_all(engine: Engine) -> None:
    """Frees what the requests hold."""
    for request in list(engine.scheduler.running):
        engine.abort(request)
    engine.prefix.clear()


def step_overhead(engine: Engine, clock: SystemClock) -> None:
    """The row of scheduling and Python."""
    decoding(engine, REQUESTS, SHORT)
    play, call = Timed(Tape.play, clock), Timed(native.call, clock)
    overheads, steps = [], []
    with patch.object(Tape, "play", lambda tape: play(tape)), patch.object(native, "call", call):
        for _ in range(STEPS):
            play.taken(), call.taken()
            start = clock.now()
            engine.step()
            seconds = clock.now() - start
            overheads.append((seconds - play.taken() - call.taken()) * 1e3)
            steps.append(seconds * 1e3)
    end_all(engine)
    value = statistics.median(overheads)
    print(f"a step takes {statistics.median(steps):.1f} ms, {value:.2f} beside its kernels")
    record(
        "serve.step_overhead_ms",
        f"Decode step of {REQUESTS} requests (SmolLM2-135M-Instruct, bfloat16, greedy): what it "
        "takes beside the model's and the sampler's kernels",
        value,
        "ms",
        low=0.5 * value,
        high=2 * value,
        runs=STEPS,
        target="<= 2",
        reference=Reference(
            name="the whole step, ms", value=statistics.median(steps), source="same run"
        ),
        command=COMMAND,
        note=f"{min(overheads):.2f} to {max(overheads):.2f}",
    )


def long_context(short: Engine, long: Engine, clock: SystemClock) -> None:
    """The row of a long context. The two take turns step by step, and memory is measured every few
    steps, because its speed changes within seconds."""
    cached = (LONG - SHORT) * cache_bytes_per_token(short.runner.model.config, "expanded", 2)
    decoding(short, 1, SHORT)
    decoding(long, 1, LONG)
    ratios, bandwidths = [], [measure_bandwidth()]
    for _ in range(ROUNDS):
        more = []
        for _ in range(STEPS // ROUNDS):
            start = clock.now()
            short.step()
            between = clock.now()
            long.step()
            more.append((clock.now() - between) - (between - start))
        bandwidths.append(measure_bandwidth())
        bandwidth = statistics.mean(bandwidths[-2:])
        ratios.append(statistics.median(more) / (cached / bandwidth))
    print("rounds:", *(f"{ratio:.2f}" for ratio in ratios))
    record(
        "serve.decode8k.over_bytes",
        f"SmolLM2-135M-Instruct in bfloat16, one request: what a decode step takes longer after "
        f"{LONG} tokens than after {SHORT}, over the time of reading the cached entries once",
        statistics.median(ratios),
        "ratio",
        low=0.8 * min(ratios),
        high=1.2 * max(ratios),
        runs=len(ratios),
        target="<= 1.3",
        reference=Reference(
            name="memory read, GB/s", value=statistics.median(bandwidths) / 1e9, source="same run"
        ),
        command=COMMAND,
        note=f"rounds {min(ratios):.2f} to {max(ratios):.2f}",
    )


def main() -> None:
    clock = SystemClock()
    loaded = load_model(ServeConfig(model=smollm2(), dtype="bfloat16", cache_tokens=16_384))
    engine = Engine(loaded.model, loaded.engine)
    step_overhead(engine, clock)
    long_context(engine, Engine(loaded.model, loaded.engine), clock)


if __name__ == "__main__":
    main()
