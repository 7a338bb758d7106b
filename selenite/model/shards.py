"""Safetensors files of bounded size with their index: how a model of any size is written.

Tensors are added one by one and leave memory with their shard; each file carries their checksums,
which ``SafetensorsWeights`` compares when it reads. Written by ``hf_adapter.py`` and
``convert.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from selenite.model.weights import CHECKSUMS, INDEX, checksum

SHARD_BYTES = 5 * 10**9
"""Largest size of a file, as Hugging Face's own tools have it."""


class ShardWriter:
    """Writes ``model.safetensors``, or ``model-00001-of-00003.safetensors`` ... with an index.

    A tensor larger than a shard gets one of its own. ``close`` gives the files their names: before
    it there is nothing that a reader would take for a model.
    """

    def __init__(self, directory: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._directory = directory
        self._shard_bytes = shard_bytes
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._shards: list[list[str]] = []
        self._total_bytes = 0
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes the next tensor; raises ``OSError`` or ``SafetensorError`` if the disk refuses."""
        if self._pending and self._pending_bytes + tensor.nbytes > self._shard_bytes:
            self._flush()
        self._pending[name] = tensor.contiguous()
        self._pending_bytes += tensor.nbytes

    def close(self) -> None:
        """Writes what is left, names the files, and writes the index if there are several."""
        self._flush()
        count = len(self._shards)
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards, start=1):
            name = (
                f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"
            )
            self._part(number).replace(self._directory / name)
            weight_map.update(dict.fromkeys(names, name))
        if count > 1:
            index = {"metadata": {"total_size": self._total_bytes}, "weight_map": weight_map}
            text = json.dumps(index, indent=2) + "\n"
            (self._directory / INDEX).write_text(text, encoding="utf-8")

    def _flush(self) -> None:
        self._shards.append(list(self._pending))
        checksums = {name: checksum(tensor) for name, tensor in self._pending.items()}
        metadata = {"format": "pt", CHECKSUMS: json.dumps(checksums)}
        part = self._part(len(self._shards))
        save_file(self._pending, part, metadata)
        _sort_metadata(part)
        self._total_bytes += self._pending_bytes
        self._pending, self._pending_bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self._directory / f".model-{number:05}.part"


def _sort_metadata(file: Path) -> None:
    """The library writes metadata in random order; the same tensors must give the same bytes."""
    with file.open("r+b") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, (len(text), size)
        opened.seek(8)
        opened.write(text.ljust(size))
