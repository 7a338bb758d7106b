"""Records that cross borders: ranges of sampling parameters, immutability, no torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from selenite.types import Completion, FinishReason, Message, SamplingParams


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, r"temperature=-0.1: must be 0 \(greedy\)"),
        ({"temperature": 1e-40}, "temperature=1e-40"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": -1}, "top_k=-1: must be 0"),
        ({"top_p": 0.0}, "top_p=0.0: must be in"),
        ({"top_p": 1.1}, "top_p=1.1: must be in"),
        ({"top_p": float("nan")}, "top_p=nan"),
        ({"min_p": -0.1}, "min_p=-0.1"),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"max_tokens": 0}, "max_tokens=0: must be 1 or more"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**64}, "seed=18446744073709551616"),
    ],
)
def test_sampling_parameters_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingParams(**changes)


def test_sampling_parameters_at_the_border() -> None:
    SamplingParams(temperature=0)
    SamplingParams(temperature=1e-6, top_k=0, top_p=1e-9, min_p=1.0, max_tokens=1, seed=2**64 - 1)
    SamplingParams(top_p=1.0, min_p=0.0, seed=0)


def test_records_are_immutable() -> None:
    completion = Completion([1], [2], "x", [0.0], FinishReason.STOP)
    for record in (SamplingParams(), Message("user", "hi"), completion):
        name = dataclasses.fields(record)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)


def test_finish_reasons_of_whole_completions_are_openais_words() -> None:
    assert [str(reason) for reason in FinishReason][:2] == ["stop", "length"]


def test_records_and_clock_import_without_torch() -> None:
    program = (
        "import sys, selenite.types, selenite.clock, selenite.errors; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
