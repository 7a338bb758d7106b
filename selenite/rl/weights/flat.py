"""A version of the weights as one stretch of bytes, for engines in other processes.

Written in the engines' dtypes, adapters merged. Beside it goes a manifest, by which an engine
verifies that it is of its own model, and whole: names, shapes, dtypes, and a checksum over all.

A directory as ``serve.weight_update`` reads it would do, too, but takes three to four times as
long: it is made to be kept, in float32 and by other programs' names.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selenite.errors import CheckpointError
from selenite.model.config import ModelConfig
from selenite.model.pack import pack_weights
from selenite.model.transformer import Transformer
from selenite.rl.weights.in_process import can_refill, merged, refill

_ALIGNED = 64  # bytes: a line of the processor's cache


@dataclass(frozen=True)
class Entry:
    """A tensor's place."""

    name: str  # of ``Transformer.state_dict``
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # its first byte
    stop: int


@dataclass(frozen=True)
class Manifest:
    """What a buffer holds."""

    version: int
    entries: tuple[Entry, ...]
    checksum: int  # CRC-32 of all bytes


def layout(config: ModelConfig, dtype: torch.dtype) -> tuple[Entry, ...]:
    """Where the tensors of a served model are."""
    with torch.device("meta"):
        model = Transformer(config).cast(dtype)
    entries = list[Entry]()
    start = 0
    for name, tensor in model.state_dict().items():
        stop = start + tensor.numel() * tensor.element_size()
        entries.append(Entry(name, tensor.dtype, tuple(tensor.shape), start, stop))
        start = -(-stop // _ALIGNED) * _ALIGNED
    return tuple(entries)


def num_bytes(entries: Sequence[Entry]) -> int:
    """Of the whole buffer."""
    return entries[-1].stop


def views(buffer: np.ndarray, entries: Sequence[Entry]) -> dict[str, Tensor]:
    """The tensors in a buffer (uint8), without a copy."""
    memory = torch.from_numpy(buffer)
    return {e.name: memory[e.start : e.stop].view(e.dtype).view(e.shape) for e in entries}


@torch.no_grad()
def write(
    model: Transformer, version: int, buffer: np.ndarray, entries: tuple[Entry, ...]
) -> Manifest:
    """Writes a version into a buffer that nobody reads now."""
    values = merged(model).state_dict()
    for name, view in views(buffer, entries).items():
        view.copy_(values[name])
    return Manifest(version, entries, zlib.crc32(buffer.data))


def verify(manifest: Manifest, buffer: np.ndarray, expected: tuple[Entry, ...]) -> None:
    """Raises ``CheckpointError`` where a buffer is not what the manifest says, or the manifest not
    of the model with the layout ``expected``."""
    source = f"weights version {manifest.version}"
    if manifest.entries != expected:
        found, wanted = ({e.name: e for e in part} for part in (manifest.entries, expected))
        differing = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        raise CheckpointError(
            f"{source}: not of the model that is served (tensors that differ: "
            f"{', '.join(differing[:5])}); start the engines anew with that model"
        )
    checksum = zlib.crc32(buffer.data)
    if checksum != manifest.checksum:
        raise CheckpointError(
            f"{source}: its checksum is {checksum:08x}, not {manifest.checksum:08x}: it was "
            "altered on its way; hand it over again"
        )


def read(
    config: ModelConfig,
    device: str,
    dtype: torch.dtype,
    values: Mapping[str, Tensor],
    spare: Transformer | None,
) -> Transformer:
    """A model to serve with a copy of ``values``; in the memory of ``spare`` where there is one."""
    if spare is not None and can_refill(spare):
        refill(spare, values)
        return spare
    with torch.device("meta"):
        model = Transformer(config).cast(dtype)
    copies = {name: value.clone().to(device) for name, value in values.items()}
    model.load_state_dict(copies, assign=True)
    model.requires_grad_(False)
    return pack_weights(model.eval())
