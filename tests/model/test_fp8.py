"""Block-scaled fp8 weights: round trip, published layout, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selenite.errors import CheckpointError
from selenite.model.fp8 import dequantize_blocks, quantize_blocks
from selenite.model.hf_adapter import load_pretrained, save_pretrained
from tests.fixtures.tiny import k2_config, tiny_model


@pytest.mark.parametrize("shape", [(256, 384), (200, 130), (1, 1)])
def test_a_round_trip_is_within_half_a_unit_in_the_last_place(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight_AB = torch.randn(shape, generator=generator)
    quantized_AB, scale_XY = quantize_blocks(weight_AB)
    restored_AB = dequantize_blocks(quantized_AB, scale_XY)
    scale_AB = scale_XY.repeat_interleave(128, 0).repeat_interleave(128, 1)
    scale_AB = scale_AB[: shape[0], : shape[1]]
    # e4m3 has 3 mantissa bits: half a unit is 2**-4 of the value's power of two, and 2**-10 below
    # the smallest normal number 2**-6.
    exponent = (weight_AB / scale_AB).abs().log2().floor().clamp(min=-6)
    half_unit_AB = 2.0 ** (exponent - 4) * scale_AB
    assert ((restored_AB - weight_AB).abs() <= half_unit_AB * 1.0001).all()


def test_each_block_has_its_own_scale() -> None:
    weight_AB = torch.ones(256, 256).to(torch.float8_e4m3fn)
    scale_XY = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    restored_AB = dequantize_blocks(weight_AB, scale_XY)
    corners = restored_AB[::255, ::255]
    assert corners.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert restored_AB[127, 128] == 2.0
    assert restored_AB[128, 127] == 3.0


def _quantized_model(folder: Path) -> dict[str, Tensor]:
    """A tiny model's directory with its expert weights in fp8; returns the tensors written."""
    save_pretrained(tiny_model(k2_config()), folder)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if ".experts." in name]:
        tensors[name], tensors[f"{name}_scale_inv"] = quantize_blocks(tensors[name])
    save_file(tensors, folder / "model.safetensors")
    return tensors


def test_an_fp8_directory_loads_as_its_dequantised_weights(tmp_path: Path) -> None:
    tensors = _quantized_model(tmp_path)
    model = load_pretrained(tmp_path)
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    expected = dequantize_blocks(tensors[name], tensors[f"{name}_scale_inv"])
    assert torch.equal(model.state_dict()["layers.1.ffn.experts.up"][2], expected)


@pytest.mark.parametrize("missing", ["scale", "weight", "shape"])
def test_a_missing_or_misshapen_scale_is_refused(tmp_path: Path, missing: str) -> None:
    tensors = _quantized_model(tmp_path)
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    if missing == "scale":
        del tensors[f"{name}_scale_inv"]
    elif missing == "weight":
        del tensors[name]
    else:
        tensors[f"{name}_scale_inv"] = torch.ones(2, 2)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=name):
        load_pretrained(tmp_path)
