"""Products of few rows by our own kernel against float32."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from selenite.ops import native
from selenite.ops.linear import decoding, linear

needs_kernel = pytest.mark.skipif(
    not native.is_available() or native.instruction_set().value != "avx512_bf16",
    reason=f"no kernel here: {native.availability().reason}, {native.instruction_set().reason}",
)


@needs_kernel
@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 12, 23, 24, 29, 64])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 192), (32, 16), (33, 17), (1, 1), (130, 35)])
def test_few_rows(rows: int, inputs: int, outputs: int):
    generator = torch.Generator().manual_seed(rows)
    x_TI = torch.randn(rows, inputs, generator=generator).bfloat16()
    weight_OI = torch.randn(outputs, inputs, generator=generator).bfloat16()
    exact = x_TI.double() @ weight_OI.double().T
    # One rounding to bfloat16 (8 bits) of a float32 sum.
    with decoding(True):
        found = linear(x_TI, weight_OI)
    assert found.dtype == torch.bfloat16
    scale = (x_TI.double().abs() @ weight_OI.double().abs().T).clamp(min=1e-3)
    assert float(((found.double() - exact).abs() / (exact.abs() / 256 + scale * 1e-5)).max()) <= 1
    # A row's bits do not depend on where its operands lie.
    wide = torch.full((rows, inputs + 3), torch.nan).bfloat16()
    wide[:, :inputs] = x_TI
    with decoding(True):
        assert torch.equal(linear(wide[:, :inputs], weight_OI), found)


@needs_kernel
@torch.no_grad()
def test_leading_dimensions_and_other_strides():
    x = torch.randn(2, 3, 40).bfloat16()
    weight_OI = torch.randn(8, 40).bfloat16()
    with decoding(True):
        flat = linear(x.view(6, 40), weight_OI)
        assert torch.equal(linear(x, weight_OI), flat.view(2, 3, 8))
        assert torch.equal(linear(x.transpose(0, 1), weight_OI), flat.view(2, 3, 8).transpose(0, 1))
        assert_close(linear(x[:, :0], weight_OI), x.new_empty(2, 0, 8))


@needs_kernel
def test_gradients_are_torchs():
    x_TI = torch.randn(3, 40).bfloat16().requires_grad_()
    weight_OI = torch.randn(8, 40, requires_grad=True)
    with decoding(True):
        linear(x_TI, weight_OI).float().sum().backward()
    assert x_TI.grad is not None
    assert weight_OI.grad is not None


@needs_kernel
@torch.no_grad()
def test_prompts_keep_torchs_product():
    """Else what is cached of a prompt would depend on the size of its chunks."""
    x_TI = torch.randn(64, 1536).bfloat16()
    weight_OI = torch.randn(576, 1536).bfloat16()
    whole = torch.nn.functional.linear(x_TI, weight_OI)
    with decoding(True):
        assert not torch.equal(linear(x_TI, weight_OI), whole)
    with decoding(False):
        assert torch.equal(linear(x_TI, weight_OI), whole)
    assert torch.equal(linear(x_TI, weight_OI), whole)
