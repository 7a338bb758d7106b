"""Batch-invariant mode: the trainer's packed forward and cached decoding give the same bits.

Each test runs ``tests/fixtures/batch_invariance.py`` in a process of its own, because MKL reads
its switch once, at a process's first product.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selenite import runtime

ROOT = Path(__file__).parents[2]
needs_mkl = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="this torch has no MKL: the mode refuses"
)


def differences(
    threads: int, extent: str, mode: str = "invariant", **environment: str
) -> dict[str, dict[str, float]]:
    command = [sys.executable, "tests/fixtures/batch_invariance.py", str(threads), extent, mode]
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def assert_all_zero(found: dict[str, dict[str, float]]) -> None:
    for model, comparisons in found.items():
        for name, largest in comparisons.items():
            assert largest == 0.0, f"{model}, {name}: differs by {largest}"


@needs_mkl
def test_packed_forward_equals_cached_decoding() -> None:
    assert_all_zero(differences(1, "quick"))


@needs_mkl
@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_whatever_the_neighbours(threads: int) -> None:
    if threads > runtime.usable_cores():
        pytest.skip(f"needs {threads} cores")
    assert_all_zero(differences(threads, "full"))


@needs_mkl
@pytest.mark.slow
def test_with_fewer_instruction_sets() -> None:
    narrow = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    assert_all_zero(differences(1, "full", **narrow))


@pytest.mark.slow
def test_fast_mode_differs_and_stays_within_its_bound() -> None:
    """The control: without the mode the same comparisons do find differences.

    The bound: 6 layers, each a few float32 roundings of 6e-8 of states of order ten.
    """
    found = differences(1, "quick", mode="fast")["nano"]
    assert 0 < max(found.values()) < 1e-4


@needs_mkl
def test_products_that_depend_on_their_rows_are_refused() -> None:
    """A switch that comes too late, and rows that are not padded: the probe must see it."""
    program = (
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "torch.nn.functional.linear(torch.ones(64, 256), torch.ones(256, 256))\n"
        "from selenite import runtime\n"
        "from selenite.errors import UnsupportedError\n"
        "runtime.INVARIANT_ROWS = 1\n"
        "try:\n"
        "    runtime.enable_batch_invariant()\n"
        "except UnsupportedError as refused:\n"
        "    assert not runtime.is_batch_invariant()\n"
        "    print(refused)\n"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=inherited,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "a product ran before the mode was switched on" in done.stdout
    assert "MKL_CBWR=AUTO,STRICT" in done.stdout


@needs_mkl
def test_latent_entries_are_refused() -> None:
    """They round otherwise than training does. In a process of its own: the mode stays on."""
    program = (
        "from selenite.runtime import choose_device, enable_batch_invariant\n"
        "enable_batch_invariant()\n"
        "from selenite.errors import ConfigError\n"
        "from selenite.model.decode import CachedModel\n"
        "from tests.fixtures.tiny import k2_config, tiny_model\n"
        "assert choose_device().value == 'cpu'\n"
        "try:\n"
        "    CachedModel(tiny_model(k2_config()), 1, 8, 'latent')\n"
        "except ConfigError as refused:\n"
        "    print(refused)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "layout=expanded" in run.stdout
