"""Products by our own kernels against float64, and their bits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from selenite.ops import native
from selenite.ops.linear import Packed, can_pack, linear, pack, packed_linear, packed_size

needs_kernel = pytest.mark.skipif(
    not native.is_available() or native.instruction_set().value != "avx512_bf16",
    reason=f"no kernel here: {native.availability().reason}, {native.instruction_set().reason}",
)
SHAPES = [(576, 192), (32, 16), (34, 17), (2, 1), (130, 35), (64, 200)]
ROWS = [1, 2, 3, 5, 7, 12, 13, 47, 48, 100, 600]


def random_operands(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x_TI = torch.randn(rows, inputs, generator=generator).bfloat16()
    return x_TI, torch.randn(outputs, inputs, generator=generator).bfloat16()


def packed(weight_OI: Tensor, to_int8: bool = False) -> Packed:
    dtype = torch.int8 if to_int8 else torch.bfloat16
    return pack(weight_OI, torch.empty(packed_size(weight_OI), dtype=dtype))


def check(found: Tensor, x_TI: Tensor, weight_OI: Tensor) -> None:
    """One rounding to bfloat16 (8 bits) of a float32 sum."""
    assert found.dtype == torch.bfloat16
    exact = x_TI.double() @ weight_OI.double().T
    scale = x_TI.double().abs() @ weight_OI.double().abs().T
    allowed = exact.abs() / 256 + scale * 1e-5 + 1e-30
    assert float(((found.double() - exact).abs() / allowed).max()) <= 1


@needs_kernel
@torch.no_grad()
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_packed(rows: int, inputs: int, outputs: int):
    x_TI, weight_OI = random_operands(rows, inputs, outputs)
    found = packed_linear(x_TI, packed(weight_OI))
    check(found, x_TI, weight_OI)
    assert torch.equal(linear(x_TI, weight_OI), found)  # packed on the way


@needs_kernel
@torch.no_grad()
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_int8(rows: int, inputs: int, outputs: int):
    x_TI, weight_OI = random_operands(rows, inputs, outputs)
    scale_O1 = weight_OI.float().abs().amax(1, keepdim=True) / 127
    rounded_OI = (weight_OI / scale_O1).round() * scale_O1.double()
    assert float(((rounded_OI - weight_OI).abs() / scale_O1).max()) <= 0.5001
    check(packed_linear(x_TI, packed(weight_OI, to_int8=True)), x_TI, rounded_OI)


@needs_kernel
@torch.no_grad()
def test_every_integer():
    """Each of -127 to 127 by one: exact, as all are bfloat16 values."""
    weight_OI = torch.zeros(255, 2)
    weight_OI[:, 0] = torch.arange(-127, 128)
    weight_OI[:, 1] = 127.0  # so that the scale is 1
    x_TI = torch.tensor([[1.0, 0.0]]).bfloat16()
    [found_O] = packed_linear(x_TI, packed(weight_OI.bfloat16(), to_int8=True))
    assert_close(found_O.float(), weight_OI[:, 0], rtol=0, atol=0)


@needs_kernel
@torch.no_grad()
def test_zeros_in_int8():
    zeros = packed(torch.zeros(3, 4).bfloat16(), to_int8=True)
    assert torch.equal(
        packed_linear(torch.ones(2, 4).bfloat16(), zeros), torch.zeros(2, 3).bfloat16()
    )


@needs_kernel
@torch.no_grad()
@pytest.mark.parametrize("to_int8", [False, True])
@pytest.mark.parametrize("outputs", [96, 640])
def test_bits_do_not_depend_on_the_number_of_rows(to_int8: bool, outputs: int):
    """So that a prompt's entries do not depend on its chunks, nor a token on its neighbours."""
    x_TI, weight_OI = random_operands(700, 576, outputs)
    weight = packed(weight_OI, to_int8)
    whole = packed_linear(x_TI, weight)
    for first, count in ((0, 1), (3, 2), (5, 7), (13, 32), (100, 47), (101, 48), (90, 577)):
        part = packed_linear(x_TI[first : first + count], weight)
        assert torch.equal(part, whole[first : first + count]), (first, count)


@needs_kernel
@torch.no_grad()
def test_leading_dimensions_and_other_strides():
    x = torch.randn(2, 3, 40).bfloat16()
    weight_OI = torch.randn(8, 40).bfloat16()
    weight = packed(weight_OI)
    flat = packed_linear(x.view(6, 40), weight)
    assert torch.equal(packed_linear(x, weight), flat.view(2, 3, 8))
    swapped = flat.view(2, 3, 8).transpose(0, 1)
    assert torch.equal(packed_linear(x.transpose(0, 1), weight), swapped)
    assert packed_linear(x[:, :0], weight).shape == (2, 0, 8)
    wide = torch.full((6, 43), torch.nan).bfloat16()
    wide[:, :40] = x.view(6, 40)
    assert torch.equal(packed_linear(wide[:, :40], weight), flat)
    assert torch.equal(linear(wide[:, :40], weight_OI), flat)


@needs_kernel
@pytest.mark.parametrize("wanted", ["both", "x", "weight"])
def test_training_has_the_bits_of_inference_and_torchs_gradients(wanted: str):
    x = torch.randn(2, 5, 40).bfloat16().requires_grad_(wanted != "weight")
    weight_OI = torch.randn(8, 40, requires_grad=wanted != "x")
    grad = torch.randn(2, 5, 8).bfloat16()
    out = linear(x, weight_OI)
    with torch.no_grad():
        assert torch.equal(out, packed_linear(x, packed(weight_OI.bfloat16())))
    inputs = [it for it in (x, weight_OI) if it.requires_grad]
    found = torch.autograd.grad(out, inputs, grad)
    torchs = torch.autograd.grad(F.linear(x, weight_OI.bfloat16()), inputs, grad)
    for ours, theirs in zip(found, torchs, strict=True):
        assert_close(ours, theirs)


@torch.no_grad()
def test_what_no_kernel_serves():
    """An odd number of inputs has half a pair; float32 is torch's."""
    x_TI, weight_OI = random_operands(3, 33, 17)
    assert not can_pack(weight_OI)
    check(linear(x_TI, weight_OI), x_TI, weight_OI)
    assert not can_pack(torch.zeros(4, 4))
