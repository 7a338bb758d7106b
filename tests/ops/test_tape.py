"""Steps played from a tape against the same steps run by Python."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from selenite.errors import UnsupportedError
from selenite.ops import native
from selenite.ops.activation import add, swiglu
from selenite.ops.norm import rms_norm
from selenite.ops.tape import _lay_out, _Memory, record

needs_kernels = pytest.mark.skipif(
    not native.is_available(), reason=f"no kernels here: {native.availability().reason}"
)


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@needs_kernels
def test_a_tape_computes_anew_on_what_its_inputs_hold():
    x_TD, gain_D = values(3, 40), torch.rand(40)

    def step() -> list[Tensor]:
        normed = rms_norm(x_TD, gain_D, 1e-5)
        total = normed
        for _ in range(20):
            total = add(swiglu(total, normed), x_TD)
        return [total, rms_norm(total.view(6, 20), gain_D[:20], 1e-5).view(3, 40)]

    tape = record(step)
    # Far less than the 42 tensors of the step: what is no longer used makes room.
    assert tape.num_bytes <= 8 * 256 + 3 * 256
    for seed in range(3):
        x_TD.copy_(values(3, 40, seed=seed))
        arena = torch.full((tape.num_bytes,), 0xFF, dtype=torch.uint8)  # NaN in bfloat16
        tape.place(arena)
        with torch.inference_mode():
            expected = step()
        for found, wanted in zip(tape.play(), expected, strict=True):
            assert torch.equal(found, wanted)


@needs_kernels
def test_what_the_step_allocated_is_given_back():
    """There is a tape for each number of sequences: what they kept would be more than the cache."""
    x_TD = values(3, 40)
    allocated = []

    def step() -> list[Tensor]:
        allocated[:] = [weakref.ref(add(x_TD, x_TD))]
        total = add(x_TD, x_TD)
        for _ in range(3):
            total = add(total, x_TD)
            allocated.append(weakref.ref(total))
        return [total]

    tape = record(step)
    assert len(allocated) == 4
    assert all(reference() is None for reference in allocated)
    tape.place(torch.empty(tape.num_bytes, dtype=torch.uint8))
    assert torch.equal(tape.play()[0], x_TD + x_TD + x_TD + x_TD + x_TD)


@needs_kernels
def test_what_torch_computes_is_refused_by_name():
    x_TD = values(3, 40)
    with pytest.raises(UnsupportedError, match=r"aten\.mul"):
        record(lambda: [add(x_TD, x_TD) * 2])
    # A refusal leaves nothing behind.
    tape = record(lambda: [add(x_TD, x_TD)])
    tape.place(torch.empty(tape.num_bytes, dtype=torch.uint8))
    assert torch.equal(tape.play()[0], x_TD + x_TD)


@needs_kernels
def test_what_other_threads_call_is_not_recorded():
    x_TD, beside_TD = values(3, 40), values(3, 40)

    def step() -> list[Tensor]:
        with ThreadPoolExecutor(1) as other:
            other.submit(native.call, "add_values", x_TD, x_TD, beside_TD, x_TD.numel()).result()
        return [add(x_TD, x_TD)]

    tape = record(step)
    assert len(tape._calls) == 1


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8), st.integers(1, 300)), max_size=30))
def test_memory_in_use_at_the_same_time_does_not_overlap(uses: list[tuple[int, int, int]]):
    memories = [
        _Memory(torch.empty(size, dtype=torch.uint8), first, first + length)
        for first, length, size in sorted(uses)
    ]
    most = _lay_out(memories)
    for a in memories:
        assert a.offset % 64 == 0
        assert a.offset + a.tensor.numel() <= most
        for b in memories:
            if a is not b and a.first <= b.last and b.first <= a.last:
                assert a.offset + a.tensor.numel() <= b.offset or (
                    b.offset + b.tensor.numel() <= a.offset
                )
