"""Rotary embedding against complex multiplication, YaRN against transformers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from transformers import DeepseekV3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from selenite.model.attention import softmax_scale
from selenite.model.config import preset
from selenite.model.transformer import build_rope
from selenite.ops import native
from selenite.ops.rope import (
    inverse_frequencies,
    rope_table,
    yarn_inverse_frequencies,
    yarn_mscale,
)


def complex_rotation(
    x_TNH: Tensor, positions_T: Tensor, inverse_C: Tensor, interleaved: bool
) -> Tensor:
    """Each pair as a complex number, turned by its angle, in float64."""
    x = x_TNH.double()
    half = x.shape[-1] // 2
    pairs = (
        torch.complex(x[..., 0::2], x[..., 1::2])
        if interleaved
        else torch.complex(x[..., :half], x[..., half:])
    )
    # The table rounds the angle itself to float32, as every published implementation does.
    angles_TC = (positions_T.float()[:, None] * inverse_C).double()
    turned = pairs * torch.polar(torch.ones_like(angles_TC), angles_TC)[:, None]
    if interleaved:
        return torch.stack((turned.real, turned.imag), -1).flatten(-2)
    return torch.cat((turned.real, turned.imag), -1)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([2, 8, 64]), st.booleans(), st.integers(0, 99))
def test_rotation_is_complex_multiplication(width: int, interleaved: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_TNH = torch.randn(12, 3, width, generator=generator)
    positions_T = torch.randint(500, (12,), generator=generator)
    inverse_C = inverse_frequencies(width, 50_000.0)
    rotated = rope_table(inverse_C, 500, interleaved).rotate(x_TNH, positions_T)
    expected = complex_rotation(x_TNH, positions_T, inverse_C, interleaved)
    # Two products of order one in float32.
    assert_close(rotated.double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("interleaved", [True, False])
def test_products_depend_on_the_distance_alone(interleaved: bool) -> None:
    rope = rope_table(inverse_frequencies(16, 10_000.0), 300, interleaved)
    q, k = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def product(i: int, j: int) -> Tensor:
        return (rope.rotate(q, torch.tensor([i])) * rope.rotate(k, torch.tensor([j]))).sum()

    # Angles of up to 300 rad are rounded at 2e-5.
    assert_close(product(250, 240), product(17, 7), atol=2e-4, rtol=0)
    assert (product(250, 240) - product(17, 9)).abs() > 1e-2
    assert torch.equal(rope.rotate(q, torch.tensor([0])), q)


def test_dtype_is_kept_and_computed_in_float32() -> None:
    rope = rope_table(inverse_frequencies(8, 10_000.0), 50, True)
    x = torch.randn(5, 2, 8).bfloat16()
    rotated = rope.rotate(x, torch.arange(40, 45))
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(rotated, rope.rotate(x.float(), torch.arange(40, 45)).bfloat16())


def test_yarn_of_kimi_k2_is_a_step() -> None:
    """Published betas of 1 and 1: 20 frequencies unchanged, 12 divided by 32, nothing between."""
    config = preset("kimi-k2")
    yarn = config.yarn
    assert yarn is not None
    scaled = yarn_inverse_frequencies(
        64, config.rope_theta, yarn.factor, yarn.original_max_positions, 1.0, 1.0
    )
    ratio = scaled / inverse_frequencies(64, config.rope_theta)
    assert ratio.tolist() == [1.0] * 20 + [1 / 32] * 12
    assert softmax_scale(config) / 192**-0.5 == pytest.approx(1.81326, abs=5e-6)
    positions = torch.arange(0, 131_072, 10_007)
    angles = positions.float()[:, None] * scaled
    assert_close(build_rope(config).cos_JC[positions], angles.cos())  # no multiplier on cosines


def test_moonlight_has_no_scaling() -> None:
    config = preset("moonlight-16b-a3b")
    assert config.yarn is None
    assert softmax_scale(config) == 192**-0.5


@pytest.mark.parametrize("name", ["deepseek-v3", "kimi-k2"])
def test_yarn_equals_transformers(name: str) -> None:
    config = preset(name)
    yarn = config.yarn
    assert yarn is not None
    theirs = DeepseekV3Config(
        qk_rope_head_dim=config.qk_rope_head_dim,
        max_position_embeddings=config.max_positions,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": config.rope_theta,
            "factor": yarn.factor,
            "original_max_position_embeddings": yarn.original_max_positions,
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "mscale": yarn.mscale,
            "mscale_all_dim": yarn.mscale_all_dim,
        },
    )
    inverse_C, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](theirs, "cpu")
    ours = yarn_inverse_frequencies(
        config.rope_dim,
        config.rope_theta,
        yarn.factor,
        yarn.original_max_positions,
        yarn.beta_fast,
        yarn.beta_slow,
    )
    assert_close(ours, inverse_C, atol=0, rtol=1e-6)  # one float32 rounding
    assert attention_factor == yarn_mscale(yarn.factor, yarn.mscale) / yarn_mscale(
        yarn.factor, yarn.mscale_all_dim
    )


def test_yarn_multiplier() -> None:
    assert yarn_mscale(1.0, 1.0) == 1.0
    assert yarn_mscale(40.0, 0.707) == 1 + 0.1 * 0.707 * math.log(40)
    assert yarn_mscale(40.0, 0.0) == 1.0


@pytest.mark.skipif(not native.is_available(), reason=native.availability().reason)
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("copied", "width"), [(0, 2), (0, 16), (5, 34), (32, 16), (1, 64)])
def test_the_kernel_equals_the_plain_path_in_float32(
    copied: int, width: int, heads: int, interleaved: bool
) -> None:
    """On heads inside wider rows, with a strided gradient; rounded once."""
    rope = rope_table(inverse_frequencies(width, 10_000.0), 50, interleaved, scale=1.1)
    H = copied + width
    wide = torch.randn(9, heads * H + 3).bfloat16().requires_grad_()
    positions_T = torch.randint(50, (9,))
    grad = torch.randn(heads, 9, H).bfloat16().transpose(0, 1)

    def run(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x_TNH = wide[:, 1 : heads * H + 1].to(dtype).view(9, heads, H)
        out = rope.rotate(x_TNH, positions_T, copied)
        return out, torch.autograd.grad(out, wide, grad.to(dtype))[0]

    for found, expected in zip(run(torch.bfloat16), run(torch.float32), strict=True):
        assert_close(found.float(), expected.float(), rtol=2**-8, atol=1e-6)
    assert rope.rotate(wide[:0, None, :H], positions_T[:0], copied).shape == (0, 1, H)
