"""Decoding with merged slots against our own full attention, in the same memory.

    python -m benchmarks.keepkv_throughput [--lengths 1024 8192 ...] [--batches 1 8 ...]

An engine with a model in SmolLM2-135M's shape (random weights: only time is told) has as many
requests of one length as its cache holds whole. Another one with the same cache has as many whose
slots were merged to a tenth, with room left for one whole prompt more. How many tokens a second
does each write? Merging again every 128 tokens counts; prompts do not, and what merging a prompt
takes is printed. The limit: bytes of weights, entries and biases that a token has to read.
Rows: keepkv.throughput10, keepkv.of_bound.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from benchmarks.results import Reference, record
from benchmarks.tidal_decode import FULL, PAGE, ROUNDS, STEPS, config_of
from selenite.model.accounting import cache_bytes_per_token
from selenite.model.init import init_weights
from selenite.model.pack import pack_weights, packed_bytes
from selenite.model.transformer import Transformer
from selenite.ops import allocator
from selenite.runtime import apply_threads, choose_dtype, torch_dtype
from selenite.serve.attention_mode import AnyMode, KeepKvAttention, reading_of
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request, Status
from selenite.types import SamplingParams

COMMAND = "python -m benchmarks.keepkv_throughput"
SHARE, EVERY = 0.1, 128
KEEPKV = KeepKvAttention(mode="keepkv", budget=SHARE, every=EVERY)


def filled(model: Transformer, num_pages: int, length: int, batch: int, mode: AnyMode) -> Engine:
    """An engine whose requests have their entries already, merged where the mode says so; random
    ones, since prompts of them all take minutes."""
    engine = Engine(model, EngineConfig(num_pages, PAGE, max_running=batch, attention=mode))
    for layer in range(model.config.num_layers):
        for stored in engine.runner.entries.read(layer):
            stored.normal_()
        if mode is not FULL:
            engine.runner.entries.biases(layer).normal_()
    params = SamplingParams(temperature=0, max_tokens=EVERY, ignore_eos=True)
    for number in range(batch):
        prompt = tuple((number + i) % 1000 for i in range(length))
        request = Request(str(number), prompt, params)
        engine.add(request)
        engine.scheduler.waiting.remove(request)
        engine.scheduler.running.append(request)
        compression = request.reading.compression
        slots = length - 1 if compression is None else compression.budget
        pages = engine.pool.allocate(engine.pool.pages_for(slots))
        assert pages is not None, (number, batch)
        request.pages = pages
        request.computed, request.merged = length - 1, length - 1 - slots
        request.compressions = int(request.merged > 0)
        request.status = Status.RUNNING
    engine.step()  # the prompts' last tokens
    return engine


def merge_seconds(engine: Engine, slots: int) -> float:
    """Of merging a request that has so many slots."""
    request = engine.scheduler.running[0]
    compression = request.reading.compression
    assert compression is not None
    config = engine.runner.model.config
    shape = config.num_layers, config.num_heads, config.qk_dim
    request.queries.extend(torch.randn(compression.window, *shape))
    kept, request.pages = request.pages, list(range(-(-slots // PAGE)))
    request.computed, request.merged, known = slots, 0, (request.computed, request.merged)
    start = time.perf_counter()
    merged = engine.runner.compressor.merge(request)
    request.pages = kept
    engine.runner.compressor.store(request, merged)
    seconds = time.perf_counter() - start
    request.queries.clear()
    request.computed, request.merged = known
    return seconds


def step_seconds(engine: Engine) -> float:
    """Of a step; the first one of its kind is not counted."""
    start = time.perf_counter()
    for _ in range(STEPS):
        engine.step()
    return (time.perf_counter() - start) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192])
    parser.add_argument("--batches", type=int, nargs="+", default=[8])
    given = parser.parse_args()
    apply_threads()
    allocator.install()
    dtype = torch_dtype(choose_dtype().value)
    ratios, bound, note = list[float](), 1.0, ""
    for length in given.lengths:
        model = init_weights(Transformer(config_of(length + EVERY)), 0).cast(dtype)
        weights = packed_bytes(pack_weights(model, to_int8=False))
        entry = cache_bytes_per_token(model.config, "expanded", dtype.itemsize)
        compression = reading_of(KEEPKV, model.config, PAGE, prompt=length).compression
        assert compression is not None
        budget = compression.budget
        for batch in given.batches:
            whole = -(-(length + EVERY) // PAGE)
            pages = batch * whole + 1
            most = max(1, (pages - whole - -(-budget // PAGE)) // -(-(budget + EVERY) // PAGE))
            engine = filled(model, pages, length, batch, FULL)
            merged = filled(model, pages, length, most, KEEPKV)
            for one in (engine, merged):
                step_seconds(one)
            found = list[tuple[float, float]]()
            for _ in range(ROUNDS):
                a_step = step_seconds(merged)
                again = merge_seconds(merged, budget + EVERY)
                found.append((batch / step_seconds(engine), most / (a_step + most * again / EVERY)))
            whole_prompt = merge_seconds(merged, min(length, pages * PAGE))
            own = [m / f for f, m in found]
            biased = entry + 4 * model.config.num_heads * model.config.num_layers
            limit = (weights / batch + length * entry) / (
                weights / most + (budget + EVERY / 2) * biased
            )
            full, fewer = (median(column) for column in zip(*found, strict=True))
            line = (
                f"{length} tokens, room for {batch} whole: {full:.1f} tokens/s; {most} merged to "
                f"{budget}: {fewer:.1f}; {median(own):.2f} times ({min(own):.2f} to "
                f"{max(own):.2f}; limit {limit:.2f}); a prompt is merged in {whole_prompt:.2f} s"
            )
            print(line, flush=True)
            if (length, batch) == (8192, 8):
                ratios, bound, note = own, limit, f"SmolLM2-135M's shape, {dtype}; {line}"
            del engine, merged
    if not ratios:
        return
    record(
        "keepkv.throughput10",
        "tokens a second of requests of 8,192 tokens merged to a tenth, over whole ones in a cache "
        "that holds 8 of these",
        median(ratios),
        "ratio",
        low=0.75 * min(ratios),
        high=1.25 * max(ratios),
        runs=ROUNDS,
        target=">= 2",
        reference=Reference(name="the limit by bytes", value=bound, source="same run, counted"),
        command=COMMAND,
        note=note,
    )
    record(
        "keepkv.of_bound",
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
