"""Directories of safetensors: listed from headers, sharded, indexed, quantised, damaged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selenite.errors import CheckpointError
from selenite.model.fp8 import dequantize_blocks, quantize_blocks
from selenite.model.hf_adapter import load_pretrained, save_pretrained
from selenite.model.weights import INDEX, SafetensorsWeights
from tests.fixtures.tiny import k2_config, tiny_model

SHARD = 20_000  # bytes: the tiny model becomes a dozen files


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save_pretrained(tiny_model(k2_config()), tmp_path / "model", shard_bytes=SHARD)
    return tmp_path / "model"


def test_shards_hold_what_one_file_holds(sharded: Path, tmp_path: Path) -> None:
    files = sorted(sharded.glob("*.safetensors"))
    assert len(files) > 5
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    save_pretrained(tiny_model(k2_config()), tmp_path / "whole")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    index = json.loads((sharded / INDEX).read_text())
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    weights = SafetensorsWeights(sharded)
    assert sorted(weights.names()) == sorted(whole)
    for name, tensor in whole.items():
        assert weights.stored[name].file.name == index["weight_map"][name]
        assert weights.shape(name) == tuple(tensor.shape)
        assert torch.equal(weights.read(name), tensor), name


def test_every_byte_of_a_file_is_in_the_listing(sharded: Path) -> None:
    weights = SafetensorsWeights(sharded)
    for file in sharded.glob("*.safetensors"):
        header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        listed = sum(s.num_bytes for s in weights.stored.values() if s.file == file)
        assert header + listed == file.stat().st_size


def test_shards_load_here_and_in_transformers(sharded: Path) -> None:
    ours = load_pretrained(sharded)
    expected = tiny_model(k2_config())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    theirs = AutoModelForCausalLM.from_pretrained(sharded, dtype=torch.float32)
    gate = theirs.get_parameter("model.layers.1.mlp.gate.weight")
    assert torch.equal(gate, expected.get_parameter("layers.1.ffn.router.weight"))


@pytest.mark.parametrize("expert", [0, 7])
def test_a_missing_expert_is_named(sharded: Path, expert: int) -> None:
    name = f"model.layers.2.mlp.experts.{expert}.down_proj.weight"
    _rewrite(sharded, {name: None})
    with pytest.raises(CheckpointError, match=rf"1 missing: {name}"):
        load_pretrained(sharded)


def test_an_expert_too_many_is_named(sharded: Path) -> None:
    names = [f"model.layers.1.mlp.experts.8.{part}_proj.weight" for part in ("gate", "up", "down")]
    _rewrite(sharded, {name: torch.ones(2, 2) for name in names})
    with pytest.raises(CheckpointError, match=r"3 unexpected: .*experts\.8\.down_proj"):
        load_pretrained(sharded)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    file = sorted(sharded.glob("*.safetensors"))[3]
    file.unlink()
    with pytest.raises(CheckpointError, match=rf"{file.name} is missing, but {INDEX}"):
        SafetensorsWeights(sharded)


def test_a_cut_shard_is_named(sharded: Path) -> None:
    file = sorted(sharded.glob("*.safetensors"))[3]
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=rf"{file.name} is damaged"):
        SafetensorsWeights(sharded)


def test_an_index_that_does_not_tell_the_truth(sharded: Path) -> None:
    truth = json.loads((sharded / INDEX).read_text())["weight_map"]
    files = Counter(truth.values())
    name = next(name for name, file in truth.items() if files[file] > 1)
    other = next(file for file in files if file != truth[name])
    for index, message in (
        ({"weight_map": truth | {name: other}}, rf"says that {name} is in {other}; it is not"),
        (
            {"weight_map": {n: f for n, f in truth.items() if n != name}},
            rf"{name} is not in {INDEX}",
        ),
        ([], "is not an index"),
    ):
        (sharded / INDEX).write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match=message):
            SafetensorsWeights(sharded)


def test_a_tensor_in_two_files(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    save_file({"model.norm.weight": torch.ones(64)}, sharded / "more.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is also in"):
        SafetensorsWeights(sharded)


def test_fp8_weights_come_out_multiplied_by_their_scales(sharded: Path) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    quantised, scale = quantize_blocks(SafetensorsWeights(sharded).read(name))
    _rewrite(sharded, {name: quantised, f"{name}_scale_inv": scale})
    weights = SafetensorsWeights(sharded)
    assert f"{name}_scale_inv" in weights.stored
    assert f"{name}_scale_inv" not in weights.names()
    expected = dequantize_blocks(quantised, scale)
    assert torch.equal(weights.read(name), expected)
    assert torch.equal(
        load_pretrained(sharded).get_parameter("layers.1.attention.o.weight"), expected
    )


def test_fp8_without_scales_and_scales_without_fp8(sharded: Path) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    quantised, scale = quantize_blocks(SafetensorsWeights(sharded).read(name))
    _rewrite(sharded, {name: quantised})
    with pytest.raises(CheckpointError, match=rf"{name} is fp8 but {name}_scale_inv is missing"):
        SafetensorsWeights(sharded)
    _rewrite(sharded, {name: None, f"{name}_scale_inv": scale})
    with pytest.raises(CheckpointError, match=rf"{name}_scale_inv scales a tensor"):
        SafetensorsWeights(sharded)


def _rewrite(directory: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Replaces, adds or (None) removes tensors; the index stays true."""
    index = json.loads((directory / INDEX).read_text())
    weight_map = index["weight_map"]
    for name, tensor in changes.items():
        file = weight_map.get(name, sorted(set(weight_map.values()))[0])
        tensors = load_file(directory / file)
        tensors.pop(name, None)
        weight_map.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
            weight_map[name] = file
        save_file(tensors, directory / file)
    (directory / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("place", [0.1, 0.5, 0.999])
def test_a_flipped_bit_is_found_and_the_tensor_named(tmp_path: Path, place: float) -> None:
    """Lengths and headers stay right: only the checksum shows it."""
    directory = tmp_path / "model"
    save_pretrained(tiny_model(k2_config()), directory)
    load_pretrained(directory)
    file = directory / "model.safetensors"
    content = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[header + int(place * (len(content) - header))] ^= 4
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged \(model\.\S+ is not"):
        load_pretrained(directory)


def test_files_without_checksums_are_read_as_they_are(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    save_pretrained(tiny_model(k2_config()), directory)
    file = directory / "model.safetensors"
    save_file(load_file(file), file)
    load_pretrained(directory)
