"""How long the weights take from a trainer to the engines of its rollouts.

    python -m benchmarks.rl_sync MODEL [--dtype float32] [--ray]

Prints [rl.sync_seconds] and the table behind it: the median of several hand-overs, from the call to
the last engine's answer that it serves the next version. The first one takes new memory and is told
apart. The weights change each time, and a probe shows afterwards that they are served.
"""

from __future__ import annotations

import argparse
import json
import statistics
from contextlib import ExitStack
from pathlib import Path

import torch

from selenite.clock import SystemClock
from selenite.model.hf_adapter import load_pretrained
from selenite.rl.config import RolloutConfig
from selenite.rl.serving import serve
from selenite.rl.weights.bus import WeightBus
from selenite.runtime import describe_machine, torch_dtype

_PROBE = tuple(range(100, 132))


def measure(directory: Path, rollouts: RolloutConfig, dtype: torch.dtype, repeats: int) -> dict:
    """Seconds of the first hand-over, and the median of the others."""
    model = load_pretrained(directory, dtype)
    clock = SystemClock()
    with ExitStack() as stack:
        engines, transport = serve(model, "cpu", dtype, rollouts, clock, stack)
        for engine in engines:
            engine.resume().result()  # it serves
        bus = WeightBus(engines, transport, dtype, _PROBE, clock, most_stale=1)
        seconds = []
        for version in range(1, repeats + 2):
            with torch.no_grad():
                model.embed.weight.mul_(1.001)
            handed = bus.publish(model, version)
            assert handed.failures == 0
            seconds.append(handed.seconds)
    return {"first": round(seconds[0], 3), "median": round(statistics.median(seconds[1:]), 3)}


def main() -> None:
    """Measures one engine here, one and two in children, and two in Ray's actors where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    places = {"in process": {}, "1 child": {"engines": 1}, "2 children": {"engines": 2}}
    if given.ray:
        places["2 actors of Ray's"] = {"engines": 2, "ray": True}
    dtype = torch_dtype(given.dtype)
    rows = {}
    for name, settings in places.items():
        rollouts = RolloutConfig.model_validate({"cache_tokens": 1024, **settings})
        rows[name] = measure(given.model, rollouts, dtype, given.repeats)
        print(f"{name:20} first {rows[name]['first']:.2f} s, then {rows[name]['median']:.2f} s")
    print(f"[rl.sync_seconds] {json.dumps({'dtype': given.dtype, **rows})}")
    print(json.dumps(describe_machine()))


if __name__ == "__main__":
    main()
