"""Weights in memory that this process and its children share: two places that take turns.

The places are files without a name, so that nothing is left of them once the last process ends,
however it ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from selenite.errors import StorageError
from selenite.model.transformer import Transformer
from selenite.rl.remote.messages import Weights
from selenite.rl.weights.flat import layout, num_bytes, write
from selenite.runtime import mebibytes

_FOLDER = Path("/dev/shm")  # memory as files; where there is none, the disk's cache is the memory


class SharedMemoryStore:
    """A ``Store``. ``files`` are the two places, for children to inherit.

    Raises ``StorageError`` where there is no room.

    Args:
        model: what is published, or of its dimensions.
        dtype: that the engines compute in.
    """

    def __init__(self, model: Transformer, dtype: torch.dtype) -> None:
        self._entries = layout(model.config, dtype)
        size = num_bytes(self._entries)
        folder = _FOLDER if _FOLDER.is_dir() else None
        self._held = [tempfile.TemporaryFile(dir=folder) for _ in range(2)]  # noqa: SIM115
        try:
            for file in self._held:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            self.close()
            raise StorageError(
                f"{folder or tempfile.gettempdir()}: no room for two versions of the weights "
                f"({mebibytes(2 * size)}: {error.strerror}); enlarge it (docker run --shm-size), "
                "or leave rollouts.engines out"
            ) from error
        self._buffers = [mapped(file.fileno()) for file in self._held]
        self._next = 0

    @property
    def files(self) -> tuple[int, ...]:
        """File descriptors of the places."""
        return tuple(file.fileno() for file in self._held)

    def write(self, model: Transformer, version: int) -> Weights:
        """``Store.write``."""
        manifest = write(model, version, self._buffers[self._next], self._entries)
        return Weights(manifest, self._next)

    def keep(self) -> None:
        """``Store.keep``."""
        self._next = 1 - self._next

    def close(self) -> None:
        """Gives the memory back, once no engine has it either."""
        self._buffers = []
        for file in self._held:
            file.close()


def mapped(file: int) -> np.ndarray:
    """uint8: the bytes of a file, as memory that all who map it share."""
    return np.frombuffer(mmap.mmap(file, 0), np.uint8)
