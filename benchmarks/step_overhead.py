"""What a decode step takes beside the model's and the sampler's kernels.

    python -m benchmarks.step_overhead

32 requests of SmolLM2-135M-Instruct decode together; the kernels of each step are timed, and the
rest is scheduling and Python. Row: serve.step_overhead_ms.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from benchmarks.results import Reference, record
from selenite.clock import SystemClock
from selenite.ops import native
from selenite.ops.tape import Tape
from selenite.serve.config import ServeConfig
from selenite.serve.engine.engine import Engine
from selenite.serve.engine.request import Request
from selenite.serve.load import load_model
from selenite.types import SamplingParams
from tests.fixtures.smollm2 import smollm2

REQUESTS, PROMPT, STEPS = 32, 64, 100


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


def main() -> None:
    clock = SystemClock()
    loaded = load_model(ServeConfig(model=smollm2(), dtype="bfloat16"))
    engine = Engine(loaded.model, loaded.engine)
    params = SamplingParams(temperature=0, max_tokens=STEPS + 50, ignore_eos=True)
    for i in range(REQUESTS):
        engine.add(Request(str(i), tuple(range(1000 + i, 1000 + i + PROMPT)), params))
    while not all(request.is_prefilled for request in engine.scheduler.running):
        engine.step()
    play, call = Timed(Tape.play, clock), Timed(native.call, clock)
    overheads, steps = [], []
    with patch.object(Tape, "play", lambda tape: play(tape)), patch.object(native, "call", call):
        for step in range(STEPS + 20):
            play.taken(), call.taken()
            start = clock.now()
            engine.step()
            seconds = clock.now() - start
            kernels = play.taken() + call.taken()
            if step >= 20:
                overheads.append((seconds - kernels) * 1e3)
                steps.append(seconds * 1e3)
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
        command="python -m benchmarks.step_overhead",
        note=f"{min(overheads):.2f} to {max(overheads):.2f}",
    )


if __name__ == "__main__":
    main()
