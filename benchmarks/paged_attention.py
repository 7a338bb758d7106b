"""Attention over cached entries: our kernel, the path without it, and torch's SDPA.

    python -m benchmarks.paged_attention

Each round times the three in turn (SDPA on keys that were gathered before), each over another
layer's entries, which together are larger than the caches; the least time counts. Pages of 16 slots
lie in a shuffled order. Beside the kernel's time stands how fast it reads entries, and at the top
how fast this machine reads memory in order.

Steps: so many sequences of so many keys, one row each; or a prompt's rows on so many keys before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from selenite.clock import SystemClock
from selenite.ops.attention_context import AttentionContext, Pages
from selenite.ops.paged_attention import attend_paged, serves
from selenite.ops.segment_attention import attend_segments
from selenite.ops.slots import empty_slots
from selenite.runtime import apply_threads, measure_bandwidth, torch_dtype

PAGE_SIZE = 16
LEAST_ROUNDS = 5
MOST_SECONDS = 1.0  # of one path in a case, after those
CACHED_BYTES = 100 * 2**20  # of all layers of a case, at least
DECODES = [(sequences, keys) for keys in (512, 8192) for sequences in (1, 8, 32)]
PREFILLS = [(512, 512), (512, 512 + 4096)]  # rows, and keys with them


@dataclass(frozen=True)
class Heads:
    """Query heads, key/value heads, key width, value width; latent values are columns of keys."""

    N: int
    M: int
    H: int
    W: int
    is_latent: bool = False


HEADS = {
    "SmolLM2-135M": Heads(9, 3, 64, 64),
    "nano, expanded": Heads(4, 4, 48, 32),
    "nano, latent": Heads(4, 1, 80, 64, is_latent=True),
}


class NoStore:
    """Attention gets the entries themselves."""

    layout = "expanded"


@dataclass(frozen=True)
class Case:
    """A step over ``layers`` pools of entries."""

    q_TNH: Tensor
    entries: list[tuple[Tensor, Tensor]]
    context: AttentionContext
    num_sequences: int
    scale: float

    @property
    def entry_bytes(self) -> int:
        """That a step reads in a layer."""
        assert self.context.pages is not None
        k_SMH, v_SMW = self.entries[0]
        width = k_SMH[0].numel() + (0 if _is_part(v_SMW, k_SMH) else v_SMW[0].numel())
        return sum(self.context.pages.lengths) * width * k_SMH.element_size()

    def gathered(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as SDPA wants them."""
        assert self.context.pages is not None
        pages = self.context.pages
        slots = torch.stack([pages.slots(b) for b in range(self.num_sequences)])
        k_BMLH, v_BMLW = (x[slots].transpose(1, 2).contiguous() for x in self.entries[layer])
        q_BNTH = self.q_TNH.unflatten(0, (self.num_sequences, -1)).transpose(1, 2).contiguous()
        return q_BNTH, k_BMLH, v_BMLW


def _is_part(v_SMW: Tensor, k_SMH: Tensor) -> bool:
    return v_SMW.data_ptr() == k_SMH.data_ptr()


def make_case(
    heads: Heads, num_sequences: int, rows: int, keys: int, dtype: torch.dtype, most_layers: int
) -> Case:
    """``num_sequences`` of so many keys, of which the last ``rows`` are this step's."""
    num_pages = -(-keys // PAGE_SIZE)
    S = num_sequences * num_pages * PAGE_SIZE
    values = 0 if heads.is_latent else heads.W
    a_layer = S * heads.M * (heads.H + values) * dtype.itemsize
    entries = []
    for _ in range(max(1, min(most_layers, CACHED_BYTES // a_layer))):
        k_SMH = empty_slots(S, (heads.M, heads.H), dtype, "cpu").normal_()
        if heads.is_latent:
            entries.append((k_SMH, k_SMH[..., : heads.W]))
        else:
            entries.append((k_SMH, empty_slots(S, (heads.M, heads.W), dtype, "cpu").normal_()))
    first = keys - rows
    context = AttentionContext(
        positions_T=torch.arange(first, keys).repeat(num_sequences),
        sequence_T=torch.arange(num_sequences).repeat_interleave(rows),
        segments=tuple((b * rows, (b + 1) * rows, first) for b in range(num_sequences)),
        pages=Pages(
            size=PAGE_SIZE,
            table_BP=torch.randperm(num_sequences * num_pages).view(num_sequences, num_pages),
            lengths=(keys,) * num_sequences,
            write_T=torch.full((num_sequences * rows,), -1),
            store=NoStore(),  # type: ignore[arg-type]
        ),
    )
    q_TNH = torch.randn(num_sequences * rows, heads.N, heads.H).to(dtype)
    return Case(q_TNH, entries, context, num_sequences, heads.H**-0.5)


def compare(case: Case, runs: int) -> list[float]:
    """Least seconds of the kernel, of segments and of SDPA."""
    clock = SystemClock()
    q_BNTH, k_BMLH, v_BMLW = case.gathered(0)
    rows, keys = q_BNTH.shape[2], k_BMLH.shape[2]
    seen = None if rows == 1 else torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows)

    def sdpa() -> Tensor:
        return F.scaled_dot_product_attention(
            q_BNTH, k_BMLH, v_BMLW, seen, scale=case.scale, enable_gqa=True
        )

    def path(attend: Callable, layer: int) -> Callable[[], object]:
        return lambda: attend(case.q_TNH, *case.entries[layer], case.context, case.scale)

    least, spent = [float("inf")] * 3, [0.0] * 3
    for run in range(runs):
        layer = run % len(case.entries)
        for i, call in enumerate((path(attend_paged, layer), path(attend_segments, layer), sdpa)):
            if run >= LEAST_ROUNDS and spent[i] > MOST_SECONDS:
                continue
            start = clock.now()
            call()
            taken = clock.now() - start
            least[i], spent[i] = min(least[i], taken), spent[i] + taken
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60, help="rounds of a case")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    runs: int = given.runs
    dtype = torch_dtype(given.dtype)
    threads = apply_threads().value
    bandwidth = measure_bandwidth(repeats=9)
    title = f"{given.dtype}, {threads} threads, memory read at {bandwidth / 1e9:.1f} GB/s"
    table = Table("heads", "step", "kernel us", "GB/s", "segments us", "SDPA us", title=title)
    for name, heads in HEADS.items():
        steps = [(f"{B} x {keys}", B, 1, keys) for B, keys in DECODES]
        steps += [(f"{rows} on {keys - rows}", 1, rows, keys) for rows, keys in PREFILLS]
        for step, num_sequences, rows, keys in steps:
            case = make_case(heads, num_sequences, rows, keys, dtype, runs)
            assert serves(case.q_TNH, *case.entries[0], case.context), "build the kernels first"
            times = compare(case, runs)
            speed = f"{case.entry_bytes / times[0] / 1e9:.1f}" if rows == 1 else ""
            kernel, segments, sdpa = (f"{seconds * 1e6:,.0f}" for seconds in times)
            table.add_row(name, step, kernel, speed, segments, sdpa)
    Console().print(table)


if __name__ == "__main__":
    main()
