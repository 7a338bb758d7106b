"""Weights in Ray's object store: put once, fetched once by each machine."""

from __future__ import annotations

import numpy as np
import torch

from selenite.model.transformer import Transformer
from selenite.rl.remote.messages import Weights
from selenite.rl.remote.ray_actor import import_ray
from selenite.rl.weights.flat import layout, num_bytes, write


class RayStore:
    """A ``Store``, for as long as Ray runs.

    Args:
        model: what is published, or of its dimensions.
        dtype: that the engines compute in.
    """

    def __init__(self, model: Transformer, dtype: torch.dtype) -> None:
        self._ray = import_ray()
        self._entries = layout(model.config, dtype)
        self._buffer = np.empty(num_bytes(self._entries), np.uint8)
        self._next: Weights | None = None
        self._kept: Weights | None = None  # what is referred to stays in the store

    def write(self, model: Transformer, version: int) -> Weights:
        """``Store.write``."""
        manifest = write(model, version, self._buffer, self._entries)
        self._next = Weights(manifest, self._ray.put(self._buffer))
        return self._next

    def keep(self) -> None:
        """``Store.keep``."""
        self._kept, self._next = self._next, None
