"""What this machine can do and what is used of it, each choice with its reason.

Device, compute dtype, threads, seeds, the batch-invariant switch, the measured peak that model
FLOPs utilisation is counted against, and the measured bandwidth of memory. ``selenite doctor``
prints what is decided here. The one ground-floor module that touches torch.
"""

from __future__ import annotations

import os
import random
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from selenite.clock import Clock, SystemClock
from selenite.errors import ConfigError, MissingExtraError, UnsupportedError
from selenite.types import Decision

DTypeName = Literal["auto", "bfloat16", "float32"]

# (rows, inputs, outputs) of the products whose best median is this machine's peak: two large
# squares, and the feed-forward shapes of the small dense presets.
PEAK_SHAPES = ((2048, 2048, 2048), (4096, 4096, 4096), (8192, 512, 1408), (4096, 576, 1536))
BANDWIDTH_BYTES = 2**30

INVARIANT_ROWS = 32
"""Batch-invariant products have a multiple of this many rows. With fewer, MKL takes other kernels
(below 4 rows everywhere), or divides the sum among threads (below 32 with MKL_CBWR on AMD)."""

_batch_invariant = False


def choose_device(requested: str = "auto") -> Decision:
    """``cuda`` where there is one, else ``cpu``; raises ``ConfigError`` for one that is absent."""
    has_cuda = torch.cuda.is_available()
    if _batch_invariant:
        if requested not in ("auto", "cpu"):
            raise ConfigError(
                f"device={requested}: batch-invariant mode computes on the CPU; use device=cpu"
            )
        return Decision("cpu", "batch-invariant mode")
    if requested == "auto":
        if has_cuda:
            return Decision("cuda", f"found {torch.cuda.get_device_name()}")
        return Decision("cpu", "no CUDA device is visible")
    _check_device(requested)
    return Decision(requested, "requested")


def _check_device(requested: str) -> None:
    try:
        device = torch.device(requested)
    except RuntimeError:
        device = None
    is_known = device is not None and (device.type == "cuda" or requested == "cpu")
    if device is None or not is_known:
        raise ConfigError(f"device={requested}: must be auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={requested}: no CUDA device is visible; use device=cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={requested}: there are {torch.cuda.device_count()} devices, counted from 0"
        )


def choose_dtype(requested: DTypeName = "auto", device: str = "cpu") -> Decision:
    """The compute dtype: bfloat16 where the processor multiplies it natively, else float32.

    Master weights are float32 either way. In batch-invariant mode, products of bfloat16 are
    computed in float32, so that ``auto`` is float32 there.
    """
    if requested != "auto":
        return Decision(requested, "requested")
    if _batch_invariant:
        return Decision("float32", "batch-invariant mode")
    return multiplies_bfloat16(device)


def multiplies_bfloat16(device: str) -> Decision:
    """``bfloat16`` where ``device`` has instructions for its products, else ``float32``."""
    if device.startswith("cuda"):
        if torch.cuda.is_bf16_supported():
            return Decision("bfloat16", "the GPU multiplies bfloat16 natively")
        return Decision("float32", "the GPU has no bfloat16 products")
    if torch.cpu._is_amx_tile_supported():
        return Decision("bfloat16", "the processor has AMX bfloat16 tiles (amx_bf16)")
    if torch.cpu._is_avx512_bf16_supported():
        return Decision("bfloat16", "the processor has avx512_bf16")
    return Decision("float32", "the processor has neither amx_bf16 nor avx512_bf16")


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype called ``bfloat16`` or ``float32``."""
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def usable_cores() -> int:
    """Cores that this process may run on (its affinity, not the machine's count)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan_threads(num_processes: int = 1) -> Decision:
    """Threads of torch in each of ``num_processes`` processes: together never more than cores.

    Two processes that each start a thread for every core wait for one another at each barrier and
    can run ten times slower. ``OMP_NUM_THREADS`` is obeyed where it asks for fewer.
    """
    cores = usable_cores()
    share = max(1, cores // num_processes)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and 0 < int(asked) < share:
        return Decision(asked, f"OMP_NUM_THREADS={asked}")
    return Decision(str(share), f"{cores} cores shared by {num_processes} process(es)")


def apply_threads(num_processes: int = 1) -> Decision:
    """Sets torch's thread count to the plan, and returns the plan."""
    plan = plan_threads(num_processes)
    torch.set_num_threads(int(plan.value))
    return plan


def seed_everything(seed: int) -> None:
    """Seeds Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def is_batch_invariant() -> bool:
    """Whether a row's result is promised not to depend on the rows computed beside it."""
    return _batch_invariant


def enable_batch_invariant() -> None:
    """Switches batch-invariant mode on for the rest of the process.

    Products then run on rows padded to a multiple of ``INVARIANT_ROWS`` (ops/linear.py, ops/moe.py)
    and with MKL's ``MKL_CBWR``, which the library reads at its first product and never again: this
    must come before any product of the process. (MKL obeys it on Intel's processors; on AMD's the
    padding suffices.) A probe then checks that products really are invariant.

    Raises:
        UnsupportedError: products depend on the number of rows (the switch came too late, or
            this torch has another library).
    """
    global _batch_invariant
    if _batch_invariant:
        return
    os.environ["MKL_CBWR"] = "AUTO,STRICT"
    _probe_invariance()
    _batch_invariant = True


def _probe_invariance() -> None:
    """Compares padded rows of a product, plain and grouped, with the same rows among many."""
    generator = torch.Generator().manual_seed(0)
    for inputs, outputs in ((256, 256), (24, 8), (128, 80), (36, 20), (1344, 20)):
        x = torch.randn(16 * INVARIANT_ROWS, inputs, generator=generator)
        weight = torch.randn(outputs, inputs, generator=generator)
        full = F.linear(x, weight)
        weights = torch.stack((weight, weight)).transpose(1, 2)
        for rows in (multiple * INVARIANT_ROWS for multiple in (1, 2, 3, 8)):
            ends = torch.tensor([rows, len(x)], dtype=torch.int32)
            grouped = F.grouped_mm(x, weights, offs=ends)
            if not (
                torch.equal(F.linear(x[:rows], weight), full[:rows]) and torch.equal(grouped, full)
            ):
                raise UnsupportedError(
                    f"batch-invariant mode: a float32 product of {rows} rows differs from the same "
                    f"rows among {len(x)}. Either a product ran before the mode was switched on "
                    "(switch it on first, or set MKL_CBWR=AUTO,STRICT in the environment), or this "
                    f"torch has no MKL (has MKL: {torch.backends.mkl.is_available()})"
                )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is torch's or Python's way to say that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    # torch's allocators, and C++ inside of an operation (sorting, say).
    said = ("not enough memory", "can't allocate memory", "std::bad_alloc")
    return any(words in text for words in said)


@dataclass(frozen=True)
class Available:
    """The least of the memory limits that this process is under."""

    num_bytes: int
    limit: str  # which one it is


def available_memory() -> Available:
    """The least of: free memory, the control group's limit, the address-space limit.

    Raises ``MissingExtraError`` without psutil.
    """
    try:
        import psutil
    except ModuleNotFoundError as error:
        raise MissingExtraError("psutil", "train", "the memory plan") from error
    limits = [Available(int(psutil.virtual_memory().available), "free memory of the machine")]
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists():
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            used = int((group / "memory.current").read_text())
            limits.append(Available(int(most) - used, "what the control group leaves"))
    if os.name == "posix":
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(Available(soft, "address-space limit (ulimit -v)"))
    return min(limits, key=lambda limit: limit.num_bytes)


def mebibytes(num_bytes: int) -> str:
    """``1,234 MiB``."""
    return f"{num_bytes / 2**20:,.0f} MiB"


def cpu_model() -> str:
    """The processor's own name, from the operating system."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            names = [line.split(":", 1)[1].strip() for line in cpuinfo if "model name" in line]
    except FileNotFoundError:
        names = []
    return names[0] if names else "unknown processor"


def describe_machine() -> dict[str, str]:
    """What a number was measured on: processor, cores, instruction sets, torch."""
    return {
        "cpu": cpu_model(),
        "cores": str(usable_cores()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx_bf16": str(torch.cpu._is_amx_tile_supported()),
        "avx512_bf16": str(torch.cpu._is_avx512_bf16_supported()),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }


def measure_peak(dtype: torch.dtype, clock: Clock | None = None, repeats: int = 3) -> float:
    """Peak of matrix products in FLOP/s: the best over ``PEAK_SHAPES`` of the median run."""
    clock = clock or SystemClock()
    best = 0.0
    for rows, inputs, outputs in PEAK_SHAPES:
        x = torch.randn(rows, inputs).to(dtype)
        weight = torch.randn(outputs, inputs).to(dtype)
        seconds = []
        for _ in range(repeats):  # the first warms up; the median does not mind
            start = clock.now()
            F.linear(x, weight)
            seconds.append(clock.now() - start)
        best = max(best, 2.0 * rows * inputs * outputs / statistics.median(seconds))
    return best


def measure_bandwidth(clock: Clock | None = None, repeats: int = 3) -> float:
    """Bytes a second of summing ``BANDWIDTH_BYTES`` on torch's threads: the median of the runs."""
    clock = clock or SystemClock()
    x = torch.ones(BANDWIDTH_BYTES // 8, dtype=torch.int64)
    seconds = []
    for _ in range(repeats):
        start = clock.now()
        x.sum()
        seconds.append(clock.now() - start)
    return BANDWIDTH_BYTES / statistics.median(seconds)
