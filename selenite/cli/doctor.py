"""``selenite doctor [CONFIG] [key=value ...]``: what runs here and why, and what a config needs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selenite.train.pretrain_config import PretrainConfig

Row = tuple[str, str, str]  # name, value, reason

# Module -> the extra that brings it.
_EXTRAS = {
    "tensorboard": "train",
    "pyarrow": "train",
    "zstandard": "train",
    "datasketch": "train",
    "matplotlib": "train",
    "tiktoken": "train",
    "psutil": "train",
    "fastapi": "serve",
    "uvicorn": "serve",
    "httpx": "serve",
    "xgrammar": "serve",
    "prometheus_client": "serve",
    "jsonschema": "serve",
    "datasets": "datasets",
}
# An assumption, said beside the estimate: what a step of a small model reaches of the peak of large
# products. A run prints its own MFU at every step.
_EXPECTED_MFU = 0.2


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file of a run, to see whether it fits.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings on top: train.micro_batch_tokens=2048")
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Run two steps on random tokens and compare with the plan.")
    ] = False,
    build: Annotated[
        bool, typer.Option(help="Compile our C++ kernels for this machine, and nothing else.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Say what this machine runs and why; with CONFIG, what the run needs and whether it fits.

    Exits with 6 when the memory plan of CONFIG does not fit.
    """
    from selenite.errors import ConfigError, OutOfMemoryError

    if build:
        _build()
        return
    if measure and config is None:
        raise ConfigError("--measure: needs a CONFIG to measure")
    settings = _load(config, overrides or []) if config is not None else None
    # The plan comes first: it counts this process as it is before the measurements' own memory.
    memory = None if settings is None else _memory(settings, measure)
    peaks = _peaks()
    sections = {"machine": _machine(peaks), "extras": _extras()}
    fits = True
    if settings is not None and memory is not None:
        sections["run"] = _run(settings, peaks)
        sections["memory"], fits = memory
    _print(sections, as_json)
    if not fits:
        raise typer.Exit(OutOfMemoryError.exit_code)


def _load(path: Path, overrides: Sequence[str]) -> PretrainConfig:
    from selenite.config import load
    from selenite.runtime import enable_batch_invariant
    from selenite.train.pretrain_config import PretrainConfig

    config = load(PretrainConfig, path, overrides)
    if config.train.batch_invariant:  # the plan is then that of the mode's own paths
        enable_batch_invariant()
    return config


def _build() -> None:
    """A machine without a compiler is not an error: everything runs without the kernels."""
    from selenite.ops import native

    if not native.can_build():
        typer.echo(f"no kernels of our own: {native.availability().reason}")
        return
    typer.echo(f"kernels: {native.build()}")


def _peaks() -> dict[str, float]:
    """Measured FLOP/s of large products, by dtype."""
    from selenite.clock import SystemClock
    from selenite.runtime import apply_threads, measure_peak, torch_dtype

    apply_threads()
    return {
        name: measure_peak(torch_dtype(name), SystemClock()) for name in ("bfloat16", "float32")
    }


def _machine(peaks: dict[str, float]) -> list[Row]:
    from selenite import runtime
    from selenite.ops import native

    device = runtime.choose_device()
    decisions = {
        "device": device,
        "dtype": runtime.choose_dtype("auto", device.value),
        "threads": runtime.plan_threads(),
    }
    rows = [(name, decision.value, decision.reason) for name, decision in decisions.items()]
    facts = runtime.describe_machine()
    rows += [(name, value, "") for name, value in facts.items() if name not in decisions]
    rows += [
        (f"{name} products", f"{flops / 1e9:,.0f} GFLOP/s", "measured: best of the peak shapes")
        for name, flops in peaks.items()
    ]
    rows.append(
        (
            "memory reads",
            f"{runtime.measure_bandwidth() / 1e9:.1f} GB/s",
            f"measured: sum of {runtime.BANDWIDTH_BYTES / 2**30:g} GiB, {facts['threads']} threads",
        )
    )
    disk = shutil.disk_usage(Path.cwd())
    return [
        *rows,
        _batch_invariance(),
        (
            "kernels",
            "ours" if native.availability().value else "torch's",
            native.availability().reason,
        ),
        ("memory", *_available()),
        ("disk", f"{disk.free / 1e9:,.1f} GB free", f"where {Path.cwd()} is"),
    ]


def _batch_invariance() -> Row:
    """Probed in a process of its own: MKL decides at a process's first product."""
    code = "from selenite.runtime import enable_batch_invariant as on; on()"
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if probe.returncode == 0:
        return ("batch-invariant mode", "available", "float32 products are, with MKL_CBWR")
    return ("batch-invariant mode", "not available", probe.stderr.strip().splitlines()[-1])


def _available() -> tuple[str, str]:
    from selenite.errors import MissingExtraError
    from selenite.runtime import available_memory, mebibytes

    try:
        available = available_memory()
    except MissingExtraError as missing:
        return "unknown", str(missing)
    return mebibytes(available.num_bytes), available.limit


def _extras() -> list[Row]:
    return [
        (module, "installed", "")
        if importlib.util.find_spec(module)
        else (module, "missing", f"pip install 'selenite[{extra}]'")
        for module, extra in _EXTRAS.items()
    ]


def _run(config: PretrainConfig, peaks: dict[str, float]) -> list[Row]:
    from selenite.model.accounting import (
        count_parameters,
        nextn_flops_per_token,
        training_flops_per_token,
    )
    from selenite.model.lora import planned_adapters
    from selenite.runtime import choose_device, choose_dtype

    train = config.train
    count = count_parameters(config.model)
    tokens = train.num_steps * train.batch_tokens
    adapters = None if config.lora is None else planned_adapters(config.model, config.lora)
    active = None if adapters is None else adapters.active
    flops = training_flops_per_token(config.model, train.seq_len, active)
    if adapters is None:
        flops += 3 * nextn_flops_per_token(config.model, train.seq_len / 2)
    flops *= tokens
    dtype = choose_dtype(train.dtype, choose_device(train.device).value).value
    minutes = flops / (peaks[dtype] * _EXPECTED_MFU) / 60
    return [
        ("parameters", f"{count.total:,}", f"{count.active:,} used by one token"),
        *([("trained", f"{adapters.total:,}", "parameters of adapters")] if adapters else []),
        ("steps", f"{train.num_steps:,}", f"of {train.micro_batches} micro-batches"),
        ("tokens", f"{tokens:,}", "steps x train.batch_tokens"),
        ("FLOPs", f"{flops:.3e}", "model FLOPs, forward and backward"),
        (
            "time",
            f"{minutes:,.1f} minutes",
            f"assuming {_EXPECTED_MFU:.0%} of the measured {dtype} peak",
        ),
    ]


def _memory(config: PretrainConfig, measure: bool) -> tuple[list[Row], bool]:
    from selenite.ops import allocator
    from selenite.runtime import mebibytes
    from selenite.train.memory import plan_memory
    from selenite.train.memory_measure import measure_memory

    allocator.install()  # as training does: the process is counted with it
    plan = plan_memory(config)
    rows = list(plan.rows())
    verdict = "fits" if plan.fits else "does not fit"
    rows.append(("verdict", verdict, f"{plan.total / max(1, plan.available.num_bytes):.0%} of it"))
    rows += [("or", mebibytes(dial.total), dial.setting) for dial in plan.dials]
    if measure:
        held = measure_memory(config).peak
        off = plan.total / held - 1
        rows.append(("measured", mebibytes(held), f"the plan's total is {off:+.1%} off"))
    return rows, plan.fits


def _print(sections: dict[str, list[Row]], as_json: bool) -> None:
    if as_json:
        named = {
            title: [
                {"name": name, "value": value, "reason": reason} for name, value, reason in rows
            ]
            for title, rows in sections.items()
        }
        typer.echo(json.dumps(named, indent=1))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for title, rows in sections.items():
        table = Table(title=title, title_justify="left", show_header=False)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
