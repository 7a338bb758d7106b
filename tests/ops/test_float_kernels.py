"""Kernels that compute float32 without gradient, against float64 and the plain path."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from selenite.ops import native
from selenite.ops.activation import add, swiglu
from selenite.ops.linear import FEW_ROWS, linear, most_recorded
from selenite.ops.norm import rms_norm
from selenite.ops.permute import look_up
from selenite.ops.rope import inverse_frequencies, rope_table

pytestmark = pytest.mark.skipif(not native.is_available(), reason=native.availability().reason)
SHAPES = [(576, 192), (8, 1), (7, 2), (1, 3), (33, 12), (130, 35), (64, 200)]
ROWS = [1, 2, 3, 4, 5, 8, 31, 64]


def product(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    out = torch.full((len(x_TI), len(weight_OI)), torch.nan)
    sizes = len(x_TI), x_TI.shape[1], len(weight_OI)
    native.call("linear_float", x_TI, x_TI.stride(0), weight_OI, out, *sizes)
    return out


def heard(function) -> list[str]:
    """The kernels that it calls."""
    names: list[str] = []
    with native.heard_by(lambda name, _: names.append(name)):
        function()
    return names


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_products_equal_those_in_float64(rows: int, inputs: int, outputs: int) -> None:
    """What lies beside a row, and behind the last, is never read."""
    generator = torch.Generator().manual_seed(rows)
    wide = torch.full((rows, inputs + 3), torch.nan)
    wide[:, :inputs] = torch.randn(rows, inputs, generator=generator)
    x_TI, weight_OI = wide[:, :inputs], torch.randn(outputs, inputs, generator=generator)
    exact = x_TI.double() @ weight_OI.double().T
    scale = x_TI.double().abs() @ weight_OI.double().abs().T
    assert float(((product(x_TI, weight_OI).double() - exact).abs() / scale).max()) < 2e-6


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_rows_bits_do_not_depend_on_the_others(num_threads: int) -> None:
    x_TI, weight_OI = torch.randn(FEW_ROWS, 250), torch.randn(301, 250)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        whole = product(x_TI, weight_OI)
        for first, count in ((0, 1), (3, 2), (5, 3), (7, 32), (13, 50)):
            part = product(x_TI[first : first + count], weight_OI)
            assert torch.equal(part, whole[first : first + count]), (first, count)
    finally:
        torch.set_num_threads(before)


def test_what_is_not_finite_stays_where_it_is() -> None:
    x_TI, weight_OI = torch.ones(3, 20), torch.ones(5, 20)
    x_TI[1, 19] = torch.inf
    weight_OI[4, 0] = torch.nan
    found = product(x_TI, weight_OI)
    assert found[:, 4].isnan().all()
    assert found[1, :4].isinf().all()
    assert (found[[0, 2], :4] == 20).all()


@pytest.mark.skipif(
    native.instruction_set().value != "avx2",
    reason=f"few float32 rows are torch's: {native.instruction_set().reason}",
)
def test_few_rows_without_gradient_are_multiplied_by_the_kernel() -> None:
    weight = torch.randn(48, 20, requires_grad=True)
    few, many = torch.randn(2, FEW_ROWS // 2, 20), torch.randn(FEW_ROWS + 1, 20)
    assert most_recorded(weight) == FEW_ROWS
    with torch.no_grad():
        assert heard(lambda: linear(few, weight)) == ["linear_float"]
        assert heard(lambda: linear(many, weight)) == []
        assert heard(lambda: linear(few, weight.T.contiguous().T)) == []
        assert_close(linear(few, weight), F.linear(few, weight))
        assert linear(few[:, :0], weight).shape == (2, 0, 48)
    assert heard(lambda: linear(few, weight)) == []
    out = linear(few, weight)
    expected = torch.autograd.grad(F.linear(few, weight).sum(), weight)[0]
    assert_close(torch.autograd.grad(out.sum(), weight)[0], expected)


@pytest.mark.parametrize("shape", [(0, 7), (1, 1), (5, 33), (3, 2, 16), (300, 64)])
def test_norm_sum_and_activation_equal_the_paths_with_gradient(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    x, y = (torch.randn(shape, generator=generator) * 9 for _ in range(2))
    gain, weight = torch.rand(shape[-1], generator=generator), torch.rand(*shape[:-1], 1)

    def run() -> list[Tensor]:
        return [rms_norm(x, gain, 1e-6), add(x, y), swiglu(x, y), swiglu(x, y, weight)]

    expected = run()
    with torch.no_grad():
        names = heard(run)
        found = run()
    assert names == [
        "rms_norm_forward_float",
        "add_values_float",
        *["swiglu_forward_float"] * 2,
    ]
    for ours, plain in zip(found, expected, strict=True):
        assert_close(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize(("copied", "width"), [(0, 2), (0, 16), (5, 34), (32, 16)])
def test_rotation_equals_the_path_with_gradient(copied: int, width: int, interleaved: bool) -> None:
    rope = rope_table(inverse_frequencies(width, 10_000.0), 50, interleaved, scale=1.1)
    x_TNH = torch.randn(9, 3 * (copied + width) + 3)[:, 1:-2].view(9, 3, -1)
    positions_T = torch.randint(50, (9,))
    expected = rope.rotate(x_TNH, positions_T, copied)
    with torch.no_grad():
        assert heard(lambda: rope.rotate(x_TNH, positions_T, copied)) == ["rope_rotate_float"]
        assert_close(rope.rotate(x_TNH, positions_T, copied), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 33, 512])
def test_rows_are_looked_up(dtype: torch.dtype, width: int) -> None:
    table, rows = torch.randn(100, width).to(dtype), torch.randint(100, (70,))
    with torch.inference_mode():
        assert heard(lambda: look_up(table, rows)) == ["gather_rows"]
        assert torch.equal(look_up(table, rows), table[rows])
