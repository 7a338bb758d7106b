"""The tensors of a Hugging Face directory on disk: listed without reading, read one at a time.

Files are memory-mapped, so a checkpoint of a trillion parameters is listed from its headers and
streamed tensor by tensor. Block-scaled fp8 weights come out multiplied by their scales. Read by
``hf_adapter.py``, ``convert.py`` and ``inspection.py``; ``gguf.py`` offers the same of a GGUF file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selenite.errors import CheckpointError
from selenite.model.fp8 import dequantize_blocks

INDEX = "model.safetensors.index.json"
CHECKSUMS = "sha256"
"""Key of a file's metadata: JSON of each tensor's ``checksum``. Ours have it; it is checked."""
_SCALE = "_scale_inv"
_FP8 = "F8_E4M3"


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file."""

    shape: tuple[int, ...]
    dtype: str  # in the format's own words: BF16, F8_E4M3, Q4_1
    num_bytes: int
    file: Path


class Weights(Protocol):
    """The tensors of a checkpoint by the names of published Hugging Face checkpoints."""

    stored: Mapping[str, Stored]
    """Everything in the files, scales included."""

    def names(self) -> list[str]:
        """What ``read`` gives: everything but the scales."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that ``read`` gives, found without reading."""
        ...

    def read(self, name: str) -> Tensor:
        """The tensor, dequantised to float32 if it was quantised.

        Raises ``CheckpointError`` for a file that is damaged.
        """
        ...


class SafetensorsWeights:
    """All safetensors files of a directory, or those that its index names.

    Raises ``CheckpointError`` for a directory without such files; a file that is missing or
    damaged; a tensor that the index has and its file has not, or the other way round; a tensor in
    two files; an fp8 tensor without scales, or scales without their tensor.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        index = _read_index(directory)
        files = sorted(directory.glob("*.safetensors")) if index is None else _files_of(index)
        if not files:
            raise CheckpointError(f"{directory} holds no .safetensors file")
        self._files: dict[Path, Any] = {}
        self._checksums: dict[str, str] = {}
        stored: dict[str, Stored] = {}
        for file in files:
            for name, tensor in self._list(file).items():
                if name in stored:
                    raise CheckpointError(
                        f"{file}: {name} is also in {stored[name].file.name}; remove one of them"
                    )
                stored[name] = tensor
        self.stored: Mapping[str, Stored] = stored
        if index is not None:
            _check_index(directory, index, stored)
        self._check_scales()

    def names(self) -> list[str]:
        return [name for name in self.stored if not self._is_scale(name)]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.stored[name].shape

    def read(self, name: str) -> Tensor:
        tensor = self._raw(name)
        if self.stored[name].dtype != _FP8:
            return tensor
        return dequantize_blocks(tensor, self._raw(name + _SCALE), name)

    def _raw(self, name: str) -> Tensor:
        file = self.stored[name].file
        try:
            tensor = self._files[file].get_tensor(name)
        except (SafetensorError, OSError) as broken:
            raise _damaged(file, broken) from broken
        written = self._checksums.get(name)
        if written is not None and checksum(tensor) != written:
            raise _damaged(file, f"{name} is not what was written: its checksum differs")
        return tensor

    def _list(self, file: Path) -> dict[str, Stored]:
        """The file's tensors, from its header, once the library finds the file whole."""
        if file.exists() and not file.is_file():
            raise CheckpointError(f"{file} is not a regular file")
        try:
            self._files[file] = safe_open(file, framework="pt")
            with file.open("rb") as opened:
                header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
            metadata = header.pop("__metadata__", {})
            self._checksums |= json.loads(metadata.get(CHECKSUMS, "{}"))
        except FileNotFoundError as missing:
            raise CheckpointError(
                f"{file} is missing, but {INDEX} names it; copy or download it again"
            ) from missing
        except (SafetensorError, OSError, ValueError) as broken:
            raise _damaged(file, broken) from broken
        return {
            name: Stored(
                tuple(entry["shape"]),
                entry["dtype"],
                entry["data_offsets"][1] - entry["data_offsets"][0],
                file,
            )
            for name, entry in header.items()
        }

    def _is_scale(self, name: str) -> bool:
        weight = self.stored.get(name.removesuffix(_SCALE))
        return name.endswith(_SCALE) and weight is not None and weight.dtype == _FP8

    def _check_scales(self) -> None:
        for name, tensor in self.stored.items():
            if tensor.dtype == _FP8 and name + _SCALE not in self.stored:
                raise CheckpointError(
                    f"{self._directory}: {name} is fp8 but {name}{_SCALE} is missing"
                )
            if name.endswith(_SCALE) and not self._is_scale(name):
                raise CheckpointError(
                    f"{self._directory}: {name} scales a tensor that is not there, or is not fp8"
                )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file; raises ``CheckpointError`` if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as broken:
        raise _damaged(path, broken) from broken


def checksum(tensor: Tensor) -> str:
    """SHA-256 (hex) of a tensor's bytes as they lie in a file."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(values.view(torch.uint8).numpy().data).hexdigest()


def num_elements(shape: tuple[int, ...]) -> int:
    """Values in a tensor of this shape."""
    return math.prod(shape)


def _read_index(directory: Path) -> dict[str, Path] | None:
    """Name to file; none where the directory has no index."""
    path = directory / INDEX
    if not path.is_file():
        return None
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        outside = [file for file in weight_map.values() if Path(file).name != file]
        if outside:
            raise ValueError(f"{outside[0]!r} is not the name of a file beside it")
        return {name: directory / file for name, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as broken:
        raise CheckpointError(
            f"{path} is not an index of safetensors files ({broken!r}); copy or download it again"
        ) from broken


def _files_of(index: Mapping[str, Path]) -> list[Path]:
    return sorted(set(index.values()))


def _check_index(directory: Path, index: Mapping[str, Path], stored: Mapping[str, Stored]) -> None:
    for name, file in index.items():
        if name not in stored or stored[name].file != file:
            raise CheckpointError(
                f"{directory}: {INDEX} says that {name} is in {file.name}; it is not"
            )
    extra = sorted(stored.keys() - index.keys())
    if extra:
        raise CheckpointError(
            f"{stored[extra[0]].file}: {extra[0]} is not in {INDEX}; the files belong to different "
            "checkpoints: copy or download them again"
        )


def _damaged(file: Path, cause: Exception | str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged ({cause}); export or copy it again")
