"""What is decided about the machine, and the reason that goes with it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from selenite import runtime
from selenite.errors import ConfigError
from selenite.runtime import (
    PEAK_SHAPES,
    Decision,
    apply_threads,
    choose_device,
    choose_dtype,
    describe_machine,
    measure_bandwidth,
    measure_peak,
    plan_threads,
    seed_everything,
    torch_dtype,
    usable_cores,
)


def processor(monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "dtype", "reason"),
    [
        (True, True, "bfloat16", "amx_bf16"),
        (False, True, "bfloat16", "avx512_bf16"),
        (False, False, "float32", "neither amx_bf16 nor avx512_bf16"),
    ],
)
def test_dtype_by_processor(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, dtype: str, reason: str
) -> None:
    processor(monkeypatch, amx, avx512_bf16)
    decision = choose_dtype()
    assert decision.value == dtype
    assert reason in decision.reason
    assert choose_dtype("float32") == Decision("float32", "requested")
    assert choose_dtype("bfloat16") == Decision("bfloat16", "requested")


def test_dtype_of_batch_invariant_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, amx=True, avx512_bf16=True)
    monkeypatch.setattr(runtime, "_batch_invariant", True)
    assert choose_dtype() == Decision("float32", "batch-invariant mode")
    assert choose_dtype("float32").value == "float32"
    assert choose_dtype("bfloat16").value == "bfloat16"


def test_torch_dtype() -> None:
    assert torch_dtype("bfloat16") is torch.bfloat16
    assert torch_dtype("float32") is torch.float32


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == Decision("cpu", "no CUDA device is visible")
    assert choose_device("cpu") == Decision("cpu", "requested")
    with pytest.raises(ConfigError, match=r"device=cuda:1: no CUDA device .* device=cpu"):
        choose_device("cuda:1")
    for wrong in ("foo", "cuda:x", "mps", "cpu:7"):
        with pytest.raises(ConfigError, match=f"device={wrong}: must be auto"):
            choose_device(wrong)


@pytest.mark.parametrize(
    ("cores", "processes", "asked", "threads", "reason"),
    [
        (8, 1, None, "8", "8 cores shared by 1 process"),
        (8, 3, None, "2", "8 cores shared by 3 process"),
        (2, 5, None, "1", "2 cores shared by 5 process"),
        (8, 1, "3", "3", "OMP_NUM_THREADS=3"),
        (8, 2, "6", "4", "8 cores shared by 2 process"),  # never more than the share
        (8, 1, "0", "8", "8 cores"),
        (8, 1, "many", "8", "8 cores"),
    ],
)
def test_threads_never_exceed_the_cores(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    processes: int,
    asked: str | None,
    threads: str,
    reason: str,
) -> None:
    monkeypatch.setattr(runtime, "usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    plan = plan_threads(processes)
    assert plan.value == threads
    assert reason in plan.reason


def test_apply_threads_sets_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert apply_threads().value == "1"
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert usable_cores() >= 1


def test_seeds() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(2**40 + 5)  # beyond numpy's 32 bits
    first = draw()
    seed_everything(2**40 + 5)
    assert draw() == first
    seed_everything(6)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


class TickingClock:
    """Each product takes as many seconds as its turn says."""

    def __init__(self, seconds: list[float]) -> None:
        self._readings = [reading for s in seconds for reading in (0.0, s)]

    def now(self) -> float:
        return self._readings.pop(0)

    def wait(self, event: object, timeout: float) -> bool:
        raise AssertionError("a measurement does not wait")


def test_peak_is_the_best_median(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small shapes in place of the real ones; their medians are 4 s and 2 s."""
    assert (2048, 2048, 2048) in PEAK_SHAPES
    monkeypatch.setattr(runtime, "PEAK_SHAPES", ((8, 4, 2), (6, 5, 4)))
    clock = TickingClock([4.0, 1.0, 9.0, 2.0, 2.0, 7.0])
    assert measure_peak(torch.float32, clock, repeats=3) == max(
        2 * 8 * 4 * 2 / 4.0, 2 * 6 * 5 * 4 / 2.0
    )


def test_bandwidth_is_that_of_the_median_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "BANDWIDTH_BYTES", 1024)
    assert measure_bandwidth(TickingClock([4.0, 0.5, 2.0])) == 1024 / 2.0


def test_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["torch"] == torch.__version__
    assert machine["cores"] == str(usable_cores())
    assert machine["threads"] == str(torch.get_num_threads())
    assert all(isinstance(value, str) and value for value in machine.values())
