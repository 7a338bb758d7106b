"""Decoding with merged slots against our own full attention, in the same memory.

    python -m benchmarks.keepkv_throughput [--lengths 1024 8192 ...] [--batches 1 8 ...]

An engine with a model in SmolLM2-135M's shape (random weights: only time is told) has as many
requests of one length as its cache holds whole. Another one with the same cache has as many whose
slots were merged to a tenth, with room left for one whole prompt more. How many tokens a second
does each write? Merging again every 128 tokens counts; prompts do not, and what merging a prompt
takes is printed. The limit: bytes of weights, entries and biases that a token has to read. As many
rows also take their products, which bytes do not count: a step of them with next to no context is
measured, too, and says how far attention alone could go.
Rows: keepkv.throughput10, keepkv.of_bound. Figure: docs/figures/keepkv_throughput.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil
import torch

from benchmarks.results import FIGURES
from benchmarks.tidal_decode import (
    FULL,
    PAGE,
    ROUNDS,
    SHARE_OF_MEMORY,
    STEPS,
    config_of,
    record_ratios,
)
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
FIGURE = FIGURES / "keepkv_throughput.png"
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


@dataclass(frozen=True)
class Cell:
    """Tokens a second in a cache that holds ``batch`` requests whole."""

    length: int
    batch: int
    most: int  # requests whose slots were merged
    full: float
    merged: float
    ratios: tuple[float, ...]  # of each round
    limit: float  # of the ratio, by bytes
    without_context: float  # the ratio if attention took no time: ``most`` rows' products remain
    a_prompt: float  # seconds of merging one

    def line(self) -> str:
        """For people."""
        return (
            f"{self.length} tokens, room for {self.batch} whole: {self.full:.1f} tokens/s; "
            f"{self.most} merged to a tenth: {self.merged:.1f}; {median(self.ratios):.2f} times "
            f"({min(self.ratios):.2f} to {max(self.ratios):.2f}; limit by bytes {self.limit:.2f}, "
            f"by the other products {self.without_context:.2f}); a prompt is merged in "
            f"{self.a_prompt:.2f} s"
        )


def measured(model: Transformer, weights: int, length: int, batch: int) -> Cell:
    """Both by turns."""
    compression = reading_of(KEEPKV, model.config, PAGE, prompt=length).compression
    assert compression is not None
    budget, entry = (
        compression.budget,
        cache_bytes_per_token(model.config, "expanded", model.compute_dtype.itemsize),
    )
    whole = -(-(length + EVERY) // PAGE)
    pages = batch * whole + 1
    most = max(1, (pages - whole - -(-budget // PAGE)) // -(-(budget + EVERY) // PAGE))
    engine = filled(model, pages, length, batch, FULL)
    merged = filled(model, pages, length, most, KEEPKV)
    short = filled(model, most * (EVERY // PAGE + 2), PAGE, most, FULL)
    for one in (engine, merged, short):
        step_seconds(one)
    full, fewer, bare = list[float](), list[float](), list[float]()
    for _ in range(ROUNDS):
        a_step = step_seconds(merged)
        again = merge_seconds(merged, budget + EVERY)
        fewer.append(most / (a_step + most * again / EVERY))
        full.append(batch / step_seconds(engine))
        bare.append(most / step_seconds(short))
    a_prompt = merge_seconds(merged, min(length, pages * PAGE))
    biased = entry + 4 * model.config.num_heads * model.config.num_layers
    kept = weights / most + (budget + EVERY / 2) * biased
    return Cell(
        *(length, batch, most, median(full), median(fewer)),
        ratios=tuple(m / f for f, m in zip(full, fewer, strict=True)),
        limit=(weights / batch + length * entry) / kept,
        without_context=median(bare) / median(full),
        a_prompt=a_prompt,
    )


def draw(cells: Sequence[Cell]) -> None:
    """Ratios over lengths, with their limits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, batch in enumerate(dict.fromkeys(cell.batch for cell in cells)):
        own = [cell for cell in cells if cell.batch == batch]
        at = [cell.length for cell in own]
        style: dict[str, Any] = {"color": f"C{number}"}
        label = f"room for {batch} whole"
        axes.plot(at, [median(cell.ratios) for cell in own], marker="o", label=label, **style)
        axes.plot(at, [cell.limit for cell in own], linestyle=":", **style)
        axes.plot(at, [cell.without_context for cell in own], linestyle="--", **style)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    lengths = sorted({cell.length for cell in cells})
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylabel("tokens a second, merged to a tenth over whole")
    axes.set_title("dotted: limit by bytes; dashed: by all other products", fontsize=9)
    axes.legend(frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 8192, 32_768])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    given = parser.parse_args()
    apply_threads()
    allocator.install()
    dtype = torch_dtype(choose_dtype().value)
    cells = list[Cell]()
    for length in given.lengths:
        model = init_weights(Transformer(config_of(length + EVERY)), 0).cast(dtype)
        weights = packed_bytes(pack_weights(model, to_int8=False))
        entry = cache_bytes_per_token(model.config, "expanded", dtype.itemsize)
        for batch in given.batches:
            # Two caches of that size, one of them with biases.
            if 2.2 * batch * length * entry > SHARE_OF_MEMORY * psutil.virtual_memory().total:
                print(f"{length} tokens, room for {batch} whole: no memory for two such caches")
                continue
            cells.append(measured(model, weights, length, batch))
            print(cells[-1].line(), flush=True)
    at_target = [cell for cell in cells if (cell.length, cell.batch) == (8192, 8)]
    if not at_target:
        return
    (cell,) = at_target
    ratios, bound = cell.ratios, cell.limit
    note = (
        f"SmolLM2-135M's shape, {dtype}; {cell.line()}; tokens x room, merged, ratio, limits: "
        + "; ".join(
            f"{c.length}x{c.batch} {c.most} {median(c.ratios):.2f} {c.limit:.2f} "
            f"{c.without_context:.2f}"
            for c in cells
        )
    )
    record_ratios(
        ("keepkv.throughput10", "keepkv.of_bound"),
        "tokens a second of requests of 8,192 tokens merged to a tenth, over whole ones in a cache "
        "that holds 8 of these",
        *(ratios, bound, 2.0, COMMAND, note),
    )
    draw(cells)


if __name__ == "__main__":
    main()
