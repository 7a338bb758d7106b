"""Prefill with blocks against exact attention, from 4k to 64k tokens, beside the limit by FLOPs.

    python -m benchmarks.moba_prefill [LENGTH ...]

One attention layer in the shape of SmolLM2-135M (9 query heads, 3 key/value heads, width 64) takes
a whole prompt in chunks from pages, as the engine does. Exact attention is the faster of our kernel
over the same pages and of torch's flash attention over the whole prompt at once. Blocks as in the
paper's runs at a fixed size (512 keys, top 3), also in chunks of as many rows as a server's, and as
in its measurement of speed (64 blocks, top 3). All by turns; random numbers, so that rows choose
any blocks.
Rows: moba.prefill64k.speedup, moba.prefill64k.served, moba.prefill4k.speedup.
Figure: docs/figures/moba_prefill.png.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from benchmarks.results import FIGURES, Reference, record
from selenite.clock import SystemClock
from selenite.model.cache import EntryCache
from selenite.model.config import preset
from selenite.ops.attention import attend
from selenite.ops.attention_context import AttentionContext, BlockRouting, Pages
from selenite.runtime import apply_threads, choose_dtype, torch_dtype

COMMAND = "python -m benchmarks.moba_prefill"
FIGURE = FIGURES / "moba_prefill.png"
LENGTHS = (4096, 8192, 16_384, 32_768, 65_536)
N, M, H, PAGE = 9, 3, 64, 16
TOP_K = 3
SHARED, SERVED = 4096, 512  # rows of a chunk
ROUNDS = 3


class Layer:
    """Random queries, keys and values of a prompt; the latter in pages."""

    def __init__(self, length: int, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.length = length
        self.q_TNH, self.k_TMH, self.v_TMH = (
            torch.randn(length, heads, H).to(dtype) for heads in (N, M, M)
        )
        self.store = EntryCache(
            preset("smollm2-135m", num_layers=1), length, dtype, "expanded", "cpu", PAGE
        )
        self.store.write(0, (self.k_TMH, self.v_TMH), torch.arange(length))
        self.store.pool(0, torch.arange(length // PAGE))

    def from_pages(self, routing: BlockRouting | None, rows: int = SHARED) -> None:
        """The whole prompt, chunk by chunk."""
        k_SMH, v_SMH = self.store.read(0)
        table = torch.arange(self.length // PAGE)[None]
        for start in range(0, self.length, rows):
            stop = min(start + rows, self.length)
            positions = torch.arange(start, stop)
            context = AttentionContext(
                positions,
                torch.zeros_like(positions),
                ((0, stop - start, start),),
                pages=Pages(PAGE, table, (stop,), positions, self.store),
                routing=(routing,),
            )
            attend(self.q_TNH[start:stop], k_SMH, v_SMH, context, H**-0.5)

    def at_once(self) -> None:
        """Exact, by torch's flash attention."""
        q, k, v = (x.transpose(0, 1)[None] for x in (self.q_TNH, self.k_TMH, self.v_TMH))
        F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def flops(length: int, block_size: int | None) -> float:
    """Of the products of queries and keys, of weights and values, and of queries and means."""
    pairs = length * length / 2
    if block_size is None:
        return 4.0 * N * H * pairs
    past = sum(
        min(block, TOP_K - 1) * block_size * block_size for block in range(length // block_size)
    )
    own = length * block_size / 2
    return 4.0 * N * H * (own + past) + 2.0 * N * H * pairs / block_size


def seconds(run: Callable[[], None]) -> float:
    clock = SystemClock()
    start = clock.now()
    run()
    return clock.now() - start


Way = tuple[int, int]  # keys of a block, rows of a chunk


@torch.inference_mode()
def measured(length: int, dtype: torch.dtype) -> dict[Way, list[float]]:
    """How many times as fast each way is, in each round; a line is printed."""
    layer = Layer(length, dtype)
    ways = [(512, SHARED), (512, SERVED)]
    ways += [(length // 64, SHARED)] if length // 64 != 512 else []
    layer.from_pages(BlockRouting(512, TOP_K))
    exact = {"our kernel": list[float](), "torch": list[float]()}
    times: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        exact["our kernel"].append(seconds(lambda: layer.from_pages(None)))
        exact["torch"].append(seconds(layer.at_once))
        for size, rows in ways:
            routing = BlockRouting(size, TOP_K)
            run = seconds(lambda routing=routing, rows=rows: layer.from_pages(routing, rows))  # type: ignore[misc]
            times[size, rows].append(run)
    fastest = [min(pair) for pair in zip(*exact.values(), strict=True)]
    ratios = {
        way: [e / t for e, t in zip(fastest, found, strict=True)] for way, found in times.items()
    }
    whole = ", ".join(f"{name} {statistics.median(found):.3f} s" for name, found in exact.items())
    told = "; ".join(
        f"blocks of {size}, {rows} rows at once: {statistics.median(times[size, rows]):.3f} s, "
        f"{statistics.median(ratios[size, rows]):.2f} times as fast "
        f"(limit {flops(length, None) / flops(length, size):.1f})"
        for size, rows in ways
    )
    print(f"{length:6} tokens: {whole}; {told}", flush=True)
    return ratios


def draw(found: Mapping[int, Mapping[Way, Sequence[float]]]) -> None:
    """Speed over exact attention by length, beside the limits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    lengths = sorted(found)
    kinds = {"blocks of 512": lambda length: 512, "64 blocks": lambda length: length // 64}
    for (name, size), color in zip(kinds.items(), ("#2a6fdb", "#ff7a59"), strict=True):
        measured = [statistics.median(found[length][size(length), SHARED]) for length in lengths]
        limits = [flops(length, None) / flops(length, size(length)) for length in lengths]
        axes.plot(lengths, measured, marker="o", color=color, label=f"{name}, 3 read")
        axes.plot(lengths, limits, linestyle="--", color=color, label="limit by FLOPs")
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.set_xticks(lengths, [f"{length // 1024}k" for length in lengths])
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylabel("times as fast as exact attention")
    axes.legend(frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


def main(lengths: list[int]) -> None:
    apply_threads()
    dtype = torch_dtype(choose_dtype().value)
    found = {length: measured(length, dtype) for length in lengths or LENGTHS}
    for length, rows, name in (
        (65_536, SHARED, "64k.speedup"),
        (65_536, SERVED, "64k.served"),
        (4096, SHARED, "4k.speedup"),
    ):
        if length not in found:
            continue
        ratios = found[length][512, rows]
        limit = flops(length, None) / flops(length, 512)
        others = (f"{n} tokens {statistics.median(r[512, rows]):.2f}" for n, r in found.items())
        record(
            f"moba.prefill{name}",
            f"attention of a prompt of {length:,} tokens with 3 blocks of 512 keys, {rows:,} rows "
            "at once, over exact attention by the faster of our kernel and torch's",
            statistics.median(ratios),
            "ratio",
            low=0.6 * min(ratios),
            high=1.6 * max(ratios),
            runs=ROUNDS,
            target=">= 2" if length == 65_536 else None,
            reference=Reference(name="the limit by FLOPs", value=limit, source="same run, counted"),
            command=COMMAND,
            note=f"one layer, SmolLM2-135M's heads, {dtype}; "
            f"{statistics.median(ratios) / limit:.0%} of the limit; the paper: 6.5 times at 1M, "
            f"16 at 10M on a GPU; others: {', '.join(others)}",
        )
    if not lengths:
        draw(found)


if __name__ == "__main__":
    main([int(length) for length in sys.argv[1:]])
