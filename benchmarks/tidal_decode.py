"""Decoding by chosen tokens against our own full attention, beside the limit by bytes.

    python -m benchmarks.tidal_decode [--lengths 1024 8192 ...] [--batches 1 8 ...]

An engine with a model in SmolLM2-135M's shape (random weights: only time is told) has requests at
the same length decode together, by turns with full attention and with 256 chosen tokens (a layer's
heads share them; the layers choose that ``experiments/tidal_needles.py`` found). Contexts longer
than the model's positions are for time alone. The limit: bytes of weights and of cached entries
that a step has to read, full over chosen.
Cells whose entries take more than ``SHARE_OF_MEMORY`` of the machine's memory are left out.
Rows: tidal.decode8k.speedup, tidal.of_bound. Figure: docs/figures/tidal_decode.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks.results import FIGURES, Reference, record
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
LAYERS = (5, 15, 18)  # that choose
TIDAL = TidalAttention(mode="tidal", budget=256, layers=[*LAYERS])
NUM_WHOLE = LAYERS[0] + len(LAYERS)  # layers that read everything: these, and those at the bottom
STEPS, ROUNDS = 4, 5
PAGE = 16
SHARE_OF_MEMORY = 0.6
FIGURE = FIGURES / "tidal_decode.png"


@dataclass(frozen=True)
class Cell:
    """How steps of so many requests at a length went."""

    length: int
    batch: int
    full: float  # seconds
    tidal: float
    ratios: tuple[float, ...]  # of each round
    limit: float  # of the ratio, by bytes
    read: float  # bytes a second, full attention

    def line(self) -> str:
        """For people."""
        return (
            f"{self.length:6} tokens, {self.batch:2} requests: {1e3 * self.full:.1f} ms full "
            f"({self.read / 1e9:.1f} GB/s), {1e3 * self.tidal:.1f} ms tidal: "
            f"{median(self.ratios):.2f} times as fast ({min(self.ratios):.2f} to "
            f"{max(self.ratios):.2f}; limit {self.limit:.2f})"
        )


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
    share = NUM_WHOLE / config.num_layers
    return int(weights + batch * entry * (share * length + (1 - share) * min(budget, length)))


def measured(model: Transformer, weights: int, length: int, batch: int) -> Cell:
    """Both by turns."""
    engine = filled(model, length, batch)
    full, tidal = list[float](), list[float]()
    for _ in range(ROUNDS):
        full.append(step_seconds(engine, FULL))
        tidal.append(step_seconds(engine, TIDAL))
    whole = bytes_read(model, weights, length, batch, length)
    fewer = bytes_read(model, weights, length, batch, TIDAL.budget)
    ratios = tuple(f / t for f, t in zip(full, tidal, strict=True))
    return Cell(
        *(length, batch, median(full), median(tidal)), ratios, whole / fewer, whole / median(full)
    )


def record_ratios(
    ids: tuple[str, str],
    claim: str,
    ratios: Sequence[float],
    bound: float,
    target: float,
    command: str,
    note: str,
) -> None:
    """Two rows: the ratio of each round, and its share of the limit by bytes."""
    limit = Reference(name="the limit by bytes", value=bound, source="same run, counted")
    for id, told, unit, over, least, reference in (
        (ids[0], claim, "ratio", 1.0, target, limit),
        (ids[1], "the same, of the limit by bytes", "share", bound, 0.6, None),
    ):
        record(
            *(id, told, median(ratios) / over, unit),
            low=0.75 * min(ratios) / over,
            high=1.25 * max(ratios) / over,
            runs=ROUNDS,
            target=f">= {least:g}",
            reference=reference,
            command=command,
            note=note,
        )


def draw(cells: Sequence[Cell]) -> None:
    """Ratios over lengths, with their limits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, batch in enumerate(dict.fromkeys(cell.batch for cell in cells)):
        own = [cell for cell in cells if cell.batch == batch]
        at, ratios = [cell.length for cell in own], [median(cell.ratios) for cell in own]
        label = f"{batch} requests" if batch > 1 else "one request"
        axes.plot(at, ratios, color=f"C{number}", marker="o", label=label)
        axes.plot(at, [cell.limit for cell in own], color=f"C{number}", linestyle=":")
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    lengths = sorted({cell.length for cell in cells})
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set_xlabel("tokens of the context")
    axes.set_ylabel(
        f"a step's speed with {TIDAL.budget} tokens\nover full attention (dotted: limit)"
    )
    axes.legend(frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 8192, 32_768])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    given = parser.parse_args()
    apply_threads()
    allocator.install()
    dtype = torch_dtype(choose_dtype().value)
    cells = list[Cell]()
    for length in given.lengths:
        model = init_weights(Transformer(config_of(length)), 0).cast(dtype)
        weights = packed_bytes(pack_weights(model, to_int8=False))
        entry = cache_bytes_per_token(model.config, "expanded", dtype.itemsize)
        for batch in given.batches:
            if batch * length * entry > SHARE_OF_MEMORY * psutil.virtual_memory().total:
                print(f"{length:6} tokens, {batch:2} requests: no room for their entries")
                continue
            cells.append(measured(model, weights, length, batch))
            print(cells[-1].line(), flush=True)
    at_target = [cell for cell in cells if (cell.length, cell.batch) == (8192, 8)]
    if not at_target:
        return
    (cell,) = at_target
    ratios, bound = cell.ratios, cell.limit
    note = (
        f"SmolLM2-135M's shape, {dtype}, budget {TIDAL.budget}, layers {LAYERS} choose, one set a "
        "layer; tokens x requests, full and tidal ms, ratio, limit: "
        + "; ".join(
            f"{c.length}x{c.batch} {1e3 * c.full:.1f} {1e3 * c.tidal:.1f} {median(c.ratios):.2f} "
            f"{c.limit:.2f}"
            for c in cells
        )
    )
    record_ratios(
        ("tidal.decode8k.speedup", "tidal.of_bound"),
        "a decode step of 8 requests at 8,192 tokens with 256 chosen ones, over full attention",
        *(ratios, bound, 2.1, COMMAND, note),
    )
    draw(cells)


if __name__ == "__main__":
    main()
