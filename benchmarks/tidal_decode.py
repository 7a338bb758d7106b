"""Decoding by chosen tokens against our own full attention, beside the limit by bytes.

    python -m benchmarks.tidal_decode [--lengths 1024 8192 ...] [--batches 1 8 ...]

An engine with a model in SmolLM2-135M's shape (random weights: only time is told) has requests at
the same length decode together, by turns with full attention and with 256 chosen tokens (a layer's
heads share them; layers 2 and 14 choose). Contexts longer than the model's positions are for time
alone. The limit: bytes of weights and of cached entries that a step has to read, full over chosen.
Rows: tidal.decode8k.speedup, tidal.of_bound.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

from benchmarks.results import Reference, record
from selenite.model.accounting import cache_bytes_per_token
from selenite.model.config import ModelConfig, preset
from selenite.model.init import init_weights
from selenite.model.pack import pack_weights, packed_bytes
from selenite.model.transformer import Transformer
from selenite.ops import allocator
from selenite.runtime import apply_threads, choose_dtype, torch_dtype
from selenite.serve.attention_mode import FullAttention, TidalAttention, reading_of
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request, Status
from selenite.types import SamplingParams

COMMAND = "python -m benchmarks.tidal_decode"
FULL = FullAttention(mode="full")
TIDAL = TidalAttention(mode="tidal", budget=256)
LAYERS_READ_WHOLE = 4  # two at the bottom, and the two that choose
STEPS, ROUNDS = 4, 5
PAGE = 16


def config_of(length: int) -> ModelConfig:
    return preset("smollm2-135m", max_positions=max(8192, length + 64))


def filled(model: Transformer, length: int, batch: int) -> Engine:
    """An engine whose requests have so many entries already; random ones, since a prompt of them
    all takes minutes."""
    more = (STEPS + 1) * 2 * ROUNDS + 8  # tokens that each will write
    slots = batch * (length + more + PAGE)
    engine = Engine(model, EngineConfig(-(-slots // PAGE) + batch, PAGE, max_running=batch))
    for layer in range(model.config.num_layers):
        for stored in engine.runner.entries.read(layer):
            stored.normal_()
    params = SamplingParams(temperature=0, max_tokens=more, ignore_eos=True)
    for number in range(batch):
        prompt = tuple((number + i) % 1000 for i in range(length))
        request = Request(str(number), prompt, params)
        engine.add(request)
        engine.scheduler.running.append(request)
        engine.scheduler.waiting.remove(request)
        pages = engine.pool.allocate(engine.pool.pages_for(length))
        assert pages is not None
        request.pages = pages
        request.computed = length - 1
        request.status = Status.RUNNING
    engine.step()  # the prompts' last tokens
    return engine


def step_seconds(engine: Engine, mode: FullAttention | TidalAttention) -> float:
    """Of a step in which all requests decode so; the first of its kind is not counted."""
    for request in engine.scheduler.running:
        request.reading = reading_of(mode, engine.runner.model.config, PAGE)
    engine.step()
    start = time.perf_counter()
    for _ in range(STEPS):
        engine.step()
    return (time.perf_counter() - start) / STEPS


def bytes_read(model: Transformer, weights: int, length: int, batch: int, budget: int) -> int:
    """By a step: weights, and entries of all tokens or of so many."""
    config = model.config
    entry = cache_bytes_per_token(config, "expanded", model.compute_dtype.itemsize)
    share = LAYERS_READ_WHOLE / config.num_layers
    return int(weights + batch * entry * (share * length + (1 - share) * min(budget, length)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 8192, 32_768])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    given = parser.parse_args()
    apply_threads()
    allocator.install()
    dtype = torch_dtype(choose_dtype().value)
    ratios, bound = list[float](), 1.0
    for length in given.lengths:
        model = init_weights(Transformer(config_of(length)), 0).cast(dtype)
        weights = packed_bytes(pack_weights(model, to_int8=False))
        for batch in given.batches:
            engine = filled(model, length, batch)
            found: dict[str, list[float]] = {"full": [], "tidal": []}
            for _ in range(ROUNDS):
                found["full"].append(step_seconds(engine, FULL))
                found["tidal"].append(step_seconds(engine, TIDAL))
            own = [f / t for f, t in zip(found["full"], found["tidal"], strict=True)]
            whole = bytes_read(model, weights, length, batch, length)
            limit = whole / bytes_read(model, weights, length, batch, TIDAL.budget)
            full, tidal = (median(seconds) for seconds in found.values())
            print(
                f"{length:6} tokens, {batch:2} requests: {1e3 * full:.1f} ms full "
                f"({whole / full / 1e9:.1f} GB/s), {1e3 * tidal:.1f} ms tidal: {median(own):.2f} "
                f"times as fast ({min(own):.2f} to {max(own):.2f}; limit {limit:.2f})",
                flush=True,
            )
            if (length, batch) == (8192, 8):
                ratios, bound = own, limit
    if not ratios:
        return
    note = (
        f"SmolLM2-135M's shape, {dtype}, budget {TIDAL.budget}, layers 2 and 14 choose, one set a "
        f"layer; rounds {', '.join(f'{ratio:.2f}' for ratio in sorted(ratios))}"
    )
    record(
        "tidal.decode8k.speedup",
        "a decode step of 8 requests at 8,192 tokens with 256 chosen ones, over full attention",
        median(ratios),
        "ratio",
        low=0.75 * min(ratios),
        high=1.25 * max(ratios),
        runs=ROUNDS,
        target=">= 2.1",
        reference=Reference(name="the limit by bytes", value=bound, source="same run, counted"),
        command=COMMAND,
        note=note,
    )
    record(
        "tidal.of_bound",
        "the same, of the limit by bytes",
        median(ratios) / bound,
        "share",
        low=0.75 * min(ratios) / bound,
        high=1.25 * max(ratios) / bound,
        runs=ROUNDS,
        target=">= 0.6",
        reference=None,
        command=COMMAND,
        note=note,
    )


if __name__ == "__main__":
    main()
