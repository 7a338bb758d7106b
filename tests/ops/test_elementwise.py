"""Norm, activations and weight products against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from selenite.ops.activation import exp, sigmoid, swiglu
from selenite.ops.linear import head_linear, linear
from selenite.ops.norm import rms_norm


@pytest.mark.parametrize("shape", [(5, 16), (3, 2, 7)])
def test_rms_norm_equals_torch(shape: tuple[int, ...]) -> None:
    x, gain = torch.randn(shape) * 30, torch.rand(shape[-1])
    assert_close(rms_norm(x, gain, 1e-5), F.rms_norm(x, shape[-1:], gain, 1e-5))


def test_rms_norm_of_bfloat16_is_float32_inside() -> None:
    """Rounded once at the end, by a gain that stays float32."""
    x, gain = (torch.randn(9, 32) * 100).bfloat16(), torch.rand(32)
    out = rms_norm(x, gain, 1e-6)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, rms_norm(x.float(), gain, 1e-6).bfloat16())


def test_rms_norm_of_zeros_is_zero_with_a_finite_gradient() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    out = rms_norm(x, torch.ones(8), 1e-6)
    assert (out == 0).all()
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


def test_activations() -> None:
    x, up = torch.randn(6, 33) * 5, torch.randn(6, 33)
    assert_close(sigmoid(x), 1 / (1 + (-x.double()).exp()), check_dtype=False)
    assert_close(exp(x), x.double().exp(), check_dtype=False)
    assert_close(swiglu(x, up), x.double() / (1 + (-x.double()).exp()) * up, check_dtype=False)
    extreme = torch.tensor([-200.0, 200.0])
    assert sigmoid(extreme).tolist() == [0.0, 1.0]
    assert swiglu(extreme, torch.ones(2)).tolist() == [0.0, 200.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_casts_the_master_weight(dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(2, 5, 8).to(dtype), torch.randn(6, 8), torch.randn(6)
    out = linear(x, weight, bias)
    assert out.dtype == dtype
    expected = torch.einsum("bti,oi->bto", x.double(), weight.to(dtype).double())
    # bf16 rounds outputs of order ten at 2**-9 of them; float32 sums 8 products.
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-5
    assert_close(out.double(), expected + bias.to(dtype), atol=tolerance, rtol=0)
    weight.requires_grad_()
    gradient = torch.autograd.grad(linear(x, weight).sum(), weight)[0]
    assert gradient.dtype == torch.float32


def test_head_linear_multiplies_each_head_by_its_own() -> None:
    x_TNI, weight_NIO = torch.randn(7, 3, 5), torch.randn(3, 5, 4)
    expected = torch.stack([x_TNI[:, n] @ weight_NIO[n] for n in range(3)], 1)
    assert_close(head_linear(x_TNI, weight_NIO), expected, atol=1e-6, rtol=1e-5)
    assert head_linear(x_TNI.bfloat16(), weight_NIO).dtype == torch.bfloat16
