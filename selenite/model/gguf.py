"""GGUF files: metadata, and tensors dequantised to float32 under Hugging Face's names.

GGUF is llama.cpp's format (ggml-org/ggml, docs/gguf.md): a header of key-value pairs with the
model's dimensions and vocabulary, a list of tensors, and their data in blocks of 32 values with a
scale each. The file is memory-mapped. Llama models are read; their query and key rows are stored
with the two halves of a head interleaved, and are put back into Hugging Face's order here.

Read by ``convert.py``; the vocabulary by ``chat/gguf_vocabulary.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selenite.errors import CheckpointError
from selenite.model.config import ModelConfig
from selenite.model.weights import Stored

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_BLOCK = 32  # values that share a scale, in every quantised type read here

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class _Type:
    """How a type of ggml lies in memory: one record for each block of ``values``."""

    name: str
    values: int
    record: np.dtype[Any]
    floats: Callable[[np.ndarray], np.ndarray]  # records [X] to float32 [X, values]


def _nibbles(quants_XH: np.ndarray) -> np.ndarray:
    """Low halves of all bytes of a block, then their high halves."""
    return np.concatenate((quants_XH & 0x0F, quants_XH >> 4), axis=1)


def _fifth_bits(bits_X: np.ndarray) -> np.ndarray:
    return ((bits_X[:, None] >> np.arange(_BLOCK, dtype=np.uint32)) & 1).astype(np.uint8) << 4


def _scale(records: np.ndarray, field: str = "d") -> np.ndarray:
    return records[field].astype(np.float32)[:, None]


def _bf16(records: np.ndarray) -> np.ndarray:
    return (records.astype(np.uint32) << 16).view(np.float32)[:, None]


def _q4_0(records: np.ndarray) -> np.ndarray:
    return _scale(records) * (_nibbles(records["q"]).astype(np.int8) - 8).astype(np.float32)


def _q4_1(records: np.ndarray) -> np.ndarray:
    return _scale(records) * _nibbles(records["q"]).astype(np.float32) + _scale(records, "m")


def _q5_0(records: np.ndarray) -> np.ndarray:
    quants = (_nibbles(records["q"]) | _fifth_bits(records["h"])).astype(np.int8) - 16
    return _scale(records) * quants.astype(np.float32)


def _q5_1(records: np.ndarray) -> np.ndarray:
    quants = _nibbles(records["q"]) | _fifth_bits(records["h"])
    return _scale(records) * quants.astype(np.float32) + _scale(records, "m")


def _q8_0(records: np.ndarray) -> np.ndarray:
    return _scale(records) * records["q"].astype(np.float32)


_D, _M = ("d", "<f2"), ("m", "<f2")
_HALVES, _FIFTH = ("q", "u1", (_BLOCK // 2,)), ("h", "<u4")
_TYPES = {
    0: _Type("F32", 1, np.dtype("<f4"), lambda x: x[:, None]),
    1: _Type("F16", 1, np.dtype("<f2"), lambda x: x.astype(np.float32)[:, None]),
    2: _Type("Q4_0", _BLOCK, np.dtype([_D, _HALVES]), _q4_0),
    3: _Type("Q4_1", _BLOCK, np.dtype([_D, _M, _HALVES]), _q4_1),
    6: _Type("Q5_0", _BLOCK, np.dtype([_D, _FIFTH, _HALVES]), _q5_0),
    7: _Type("Q5_1", _BLOCK, np.dtype([_D, _M, _FIFTH, _HALVES]), _q5_1),
    8: _Type("Q8_0", _BLOCK, np.dtype([_D, ("q", "i1", (_BLOCK,))]), _q8_0),
    30: _Type("BF16", 1, np.dtype("<u2"), _bf16),
}

# By the name of the tensor, {i} the layer.
_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INSIDE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class _Place:
    """A tensor in the file."""

    name: str  # its own
    shape: tuple[int, ...]
    type: _Type
    offset: int  # bytes from the beginning of the file


class GGUFWeights:
    """A GGUF file of a Llama model, as ``weights.Weights``.

    Attributes:
        metadata: the header's keys and values.
        config: the model's dimensions.

    Raises:
        CheckpointError: not a GGUF file, cut short, of another architecture, or with a tensor of
            a type that is not read here.
    """

    def __init__(self, file: Path) -> None:
        try:
            self._bytes = np.memmap(file, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise CheckpointError(f"{file} cannot be read ({error})") from error
        self._file = file
        try:
            self.metadata, tensors = _read_header(self._bytes, file)
        except (struct.error, UnicodeDecodeError, KeyError) as broken:
            raise CheckpointError(
                f"{file} is not a GGUF file, or is damaged ({broken!r}); download it again"
            ) from broken
        self.config = _config(self.metadata, tensors, file)
        self._places = {_hf_name(place.name, file): place for place in tensors}
        self.stored: Mapping[str, Stored] = {
            name: Stored(place.shape, place.type.name, _num_bytes(place), file)
            for name, place in self._places.items()
        }
        for place in tensors:
            if place.offset + _num_bytes(place) > len(self._bytes):
                raise CheckpointError(
                    f"{file} ends within the tensor {place.name}: download it again"
                )

    def names(self) -> list[str]:
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[name].shape

    def read(self, name: str) -> Tensor:
        place = self._places[name]
        data = self._bytes[place.offset : place.offset + _num_bytes(place)]
        records = np.frombuffer(data, dtype=place.type.record)
        values = np.ascontiguousarray(place.type.floats(records), dtype=np.float32)
        tensor = torch.from_numpy(values.reshape(place.shape).copy())
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = self.config.num_heads if "q_proj" in name else self.config.kv_heads
            return _halves_apart(tensor, heads)
        return tensor


def _halves_apart(weight_AB: Tensor, num_heads: int) -> Tensor:
    """Rows of each head from (0, H/2, 1, H/2 + 1, ...) to (0, 1, ..., H - 1)."""
    A, B = weight_AB.shape
    return weight_AB.view(num_heads, A // num_heads // 2, 2, B).transpose(1, 2).reshape(A, B)


def _num_bytes(place: _Place) -> int:
    count = int(np.prod(place.shape, dtype=np.int64))
    return count // place.type.values * place.type.record.itemsize


def _hf_name(name: str, file: Path) -> str:
    """Hugging Face's name of a tensor of a Llama model."""
    stem, _, kind = name.rpartition(".")
    if stem in _OUTSIDE and kind == "weight":
        return f"{_OUTSIDE[stem]}.weight"
    match stem.split("."):
        case ["blk", layer, part] if part in _INSIDE and kind == "weight":
            return f"model.layers.{int(layer)}.{_INSIDE[part]}.weight"
    raise CheckpointError(f"{file}: the tensor {name} has no place in a Llama model of this kind")


def _config(metadata: Mapping[str, Any], tensors: list[_Place], file: Path) -> ModelConfig:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise CheckpointError(
            f"{file}: general.architecture={architecture!r}; only 'llama' is read from GGUF"
        )
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise CheckpointError(f"{file}: llama.rope.scaling.type={scaling!r} is not supported")

    def value(key: str) -> Any:
        if f"llama.{key}" not in metadata:
            raise CheckpointError(f"{file}: the key llama.{key} is missing")
        return metadata[f"llama.{key}"]

    names = {place.name: place for place in tensors}
    if "token_embd.weight" not in names:
        raise CheckpointError(f"{file}: the tensor token_embd.weight is missing")
    vocab_size, hidden_size = names["token_embd.weight"].shape
    num_heads = value("attention.head_count")
    return ModelConfig(
        attention="gqa",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=value("block_count"),
        num_heads=num_heads,
        num_kv_heads=metadata.get("llama.attention.head_count_kv", num_heads),
        head_dim=metadata.get("llama.attention.key_length"),
        ffn_hidden_size=value("feed_forward_length"),
        max_positions=value("context_length"),
        rope_theta=metadata.get("llama.rope.freq_base", 10_000.0),
        # Stored as float32, where 1e-5 is 9.99999974e-06: the shortest decimal that means it.
        norm_eps=float(str(np.float32(value("attention.layer_norm_rms_epsilon")))),
        tie_embeddings="output.weight" not in names,
    )


def _read_header(data: np.ndarray, file: Path) -> tuple[dict[str, Any], list[_Place]]:
    reader = _Reader(data)
    if bytes(data[:4]) != _MAGIC:
        raise CheckpointError(f"{file} is not a GGUF file: it begins with {bytes(data[:4])!r}")
    reader.position = 4
    version = reader.scalar("I")
    if version not in _VERSIONS:
        raise CheckpointError(f"{file}: GGUF version {version}; versions 2 and 3 are read")
    num_tensors, num_keys = reader.scalar("Q"), reader.scalar("Q")
    metadata = {reader.string(): reader.value(reader.scalar("I")) for _ in range(num_keys)}
    listed = [reader.tensor(file) for _ in range(num_tensors)]
    alignment = int(metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
    start = reader.position + -reader.position % alignment
    return metadata, [_Place(name, shape, kind, start + at) for name, shape, kind, at in listed]


class _Reader:
    """Takes values from the beginning of the file on; ``struct.error`` where it ends too soon."""

    def __init__(self, data: np.ndarray) -> None:
        self._data = data.data
        self.position = 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self.position)
        self.position += struct.calcsize(f"<{code}")
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        end = self.position + length
        if end > len(self._data):
            raise struct.error(f"a text of {length} bytes at byte {self.position}")
        text = bytes(self._data[self.position : end]).decode("utf-8")
        self.position = end
        return text

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            item, count = self.scalar("I"), self.scalar("Q")
            if item == _ARRAY:
                raise struct.error("an array of arrays")
            return [self.value(item) for _ in range(count)]
        return self.scalar(_SCALARS[kind])

    def tensor(self, file: Path) -> tuple[str, tuple[int, ...], _Type, int]:
        """Name, shape, type and offset within the data."""
        name = self.string()
        shape = tuple(self.scalar("Q") for _ in range(self.scalar("I")))[::-1]  # innermost first
        kind = self.scalar("I")
        if kind not in _TYPES:
            known = ", ".join(known.name for known in _TYPES.values())
            raise CheckpointError(
                f"{file}: the tensor {name} has ggml type {kind}, which is not read here; there "
                f"are {known}"
            )
        if shape[-1] % _TYPES[kind].values:
            raise CheckpointError(f"{file}: {name} has rows of {shape[-1]}, not of whole blocks")
        return name, shape, _TYPES[kind], self.scalar("Q")
