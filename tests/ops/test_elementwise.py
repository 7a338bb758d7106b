"""Norm, activations and weight products against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from selenite.ops import native
from selenite.ops.activation import exp, sigmoid, swiglu
from selenite.ops.linear import head_linear, linear
from selenite.ops.norm import rms_norm

kernels = pytest.mark.skipif(not native.is_available(), reason=native.availability().reason)


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


@kernels
@pytest.mark.parametrize("width", [1, 7, 16, 33, 512])
@pytest.mark.parametrize("rows", [0, 1, 127, 128, 300])
def test_the_norm_kernel_equals_the_plain_path(rows: int, width: int) -> None:
    """On a slice of wider rows. The same float32 arithmetic in another order: a value may be
    rounded to the next bfloat16."""
    generator = torch.Generator().manual_seed(rows)
    wide = (torch.randn(rows, width + 3, generator=generator) * 9).bfloat16().requires_grad_()
    gain = torch.rand(width, generator=generator, requires_grad=True)
    grad = torch.randn(rows, 2 * width, generator=generator).bfloat16()[:, ::2]

    def run(x: Tensor) -> tuple[Tensor, ...]:
        out = rms_norm(x[:, 2 : width + 2], gain, 1e-6)
        return out, *torch.autograd.grad(out, (wide, gain), grad.to(x.dtype))

    assert native.serves(wide)
    (out, dx, dgain), (out32, dx32, dgain32) = run(wide), run(wide.float())
    assert_close(out.float(), out32, atol=0, rtol=2**-8)
    # The reference's gradient by x goes through a cast, which rounds it.
    assert_close(dx, dx32, atol=2e-6, rtol=2**-7)
    assert_close(dgain, dgain32, atol=1e-4, rtol=1e-5)


@kernels
def test_the_norm_kernel_passes_on_what_is_not_finite() -> None:
    x = torch.tensor([[1.0, torch.nan, 2.0], [1.0, torch.inf, 2.0], [1.0, 2.0, 3.0]])
    gain = torch.ones(3)
    out = rms_norm(x.bfloat16(), gain, 1e-6)
    assert_close(out.float(), rms_norm(x, gain, 1e-6), equal_nan=True, atol=0, rtol=2**-8)


@kernels
def test_the_norm_kernel_gives_the_same_bits_on_any_number_of_threads() -> None:
    x, gain = torch.randn(1000, 96).bfloat16().requires_grad_(), torch.rand(96, requires_grad=True)

    def run(num_threads: int) -> list[Tensor]:
        torch.set_num_threads(num_threads)
        out = rms_norm(x, gain, 1e-6)
        return [out, *torch.autograd.grad(out.float().square().sum(), (x, gain))]

    before = torch.get_num_threads()
    try:
        assert all(torch.equal(a, b) for a, b in zip(run(1), run(3), strict=True))
    finally:
        torch.set_num_threads(before)


def test_activations() -> None:
    x, up = torch.randn(6, 33) * 5, torch.randn(6, 33)
    assert_close(sigmoid(x), 1 / (1 + (-x.double()).exp()), check_dtype=False)
    assert_close(exp(x), x.double().exp(), check_dtype=False)
    assert_close(swiglu(x, up), x.double() / (1 + (-x.double()).exp()) * up, check_dtype=False)
    extreme = torch.tensor([-200.0, 200.0])
    assert sigmoid(extreme).tolist() == [0.0, 1.0]
    assert swiglu(extreme, torch.ones(2)).tolist() == [0.0, 200.0]


@kernels
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 7), (2, 3, 33), (130, 128)])
def test_the_swiglu_kernel_equals_the_plain_path_in_float32(
    shape: tuple[int, ...], weighted: bool
) -> None:
    """Each result is rounded to bfloat16 once."""
    generator = torch.Generator().manual_seed(sum(shape))
    gate, up = ((torch.randn(shape, generator=generator) * 3).bfloat16() for _ in range(2))
    gate.view(-1)[:3] = torch.tensor([-100.0, 100.0, 0.0])[: gate.numel()]
    weight = torch.rand(*shape[:-1], 1, generator=generator) if weighted else None
    grad = torch.randn(shape, generator=generator).bfloat16()

    def run(dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [x.to(dtype) for x in (gate, up)]
        inputs += [weight.clone()] if weighted else []
        for x in inputs:
            x.requires_grad_()
        out = swiglu(*inputs)
        return out, *torch.autograd.grad(out, inputs, grad.to(dtype))

    assert native.serves(gate)
    for found, expected in zip(run(torch.bfloat16), run(torch.float32), strict=True):
        # The second number: the gradient by a weight sums products of order one in float32.
        assert_close(found.float(), expected, rtol=2**-8, atol=1e-5)


@kernels
def test_the_swiglu_kernel_passes_on_what_is_not_finite() -> None:
    inf, nan = torch.inf, torch.nan
    gate, up = torch.tensor([nan, inf, -inf, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, nan, inf])

    def run(dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [x.to(dtype)[None].requires_grad_() for x in (gate, up)]
        out = swiglu(*inputs)
        return out, *torch.autograd.grad(out.sum(), inputs)

    for found, expected in zip(run(torch.bfloat16), run(torch.float32), strict=True):
        assert_close(found.float(), expected, equal_nan=True, rtol=2**-8, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_casts_the_master_weight(dtype: torch.dtype) -> None:
    x, weight = torch.randn(2, 5, 8).to(dtype), torch.randn(6, 8)
    out = linear(x, weight)
    assert out.dtype == dtype
    expected = torch.einsum("bti,oi->bto", x.double(), weight.to(dtype).double())
    # bf16 rounds outputs of order ten at 2**-9 of them; float32 sums 8 products.
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-5
    assert_close(out.double(), expected, atol=tolerance, rtol=0)
    weight.requires_grad_()
    gradient = torch.autograd.grad(linear(x, weight).sum(), weight)[0]
    assert gradient.dtype == torch.float32


def test_head_linear_multiplies_each_head_by_its_own() -> None:
    x_TNI, weight_NIO = torch.randn(7, 3, 5), torch.randn(3, 5, 4)
    expected = torch.stack([x_TNI[:, n] @ weight_NIO[n] for n in range(3)], 1)
    assert_close(head_linear(x_TNI, weight_NIO), expected, atol=1e-6, rtol=1e-5)
    assert head_linear(x_TNI.bfloat16(), weight_NIO).dtype == torch.bfloat16
