"""Trainer and engine on what was sampled: equal to the bit in batch-invariant mode, on every step.

Each test runs ``tests/fixtures/rl_mismatch.py`` in a process of its own, because MKL reads its
switch once, at a process's first product.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.test_batch_invariance import ROOT, needs_mkl


def runs(mode: str, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Of each run the metrics of its updates."""
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        [sys.executable, "tests/fixtures/rl_mismatch.py", mode, str(folder)],
        cwd=ROOT,
        env=inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, float]]] = json.loads(done.stdout)
    return found


@needs_mkl
@pytest.mark.slow
def test_engine_and_trainer_agree_to_the_bit_on_every_step(tmp_path: Path) -> None:
    """Over updates of the weights, turns, prompts computed once, and temperatures."""
    found = runs("invariant", tmp_path)
    assert len(found) == 4
    for name, updates in found.items():
        compared = [update for update in updates if "mismatch_max" in update]
        assert len(compared) >= 2, name
        for update in compared:
            assert update["mismatch_max"] == update["mismatch_mean"] == 0.0, name
        assert all(update.get("sync_gap", 0.0) == 0.0 for update in updates), name
        moved = [update["loss"] for update in updates if update["grad_norm"] > 0]
        assert moved, name
        assert len(set(moved)) == len(moved), name
    assert all(update["routing_differs"] == 0.0 for update in found["mla, experts"])


@needs_mkl
@pytest.mark.slow
def test_without_the_mode_they_do_not(tmp_path: Path) -> None:
    """The control. In float32 a few bits of rounding for every token. In bfloat16, where routing is
    not replayed, a token whose experts nearly tie may go elsewhere and differ by any amount: there
    the mean is bounded, which such tokens hardly move."""
    found = runs("fast", tmp_path)
    for name, updates in found.items():
        compared = [update for update in updates if "mismatch_max" in update]
        assert compared, name
        for update in compared:
            assert update["mismatch_max"] > 0, name
            if "bfloat16" in name:
                assert update["mismatch_mean"] < 0.2, name
            else:
                assert update["mismatch_max"] < 1e-3, name
