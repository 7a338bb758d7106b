"""Cached entries of all layers in flat slots: the plain ``EntryStore`` of the decoder.

The extra prediction layers (``model/nextn.py``) come behind the model's own.
Slots are filled with NaN until written, so that reading one by mistake cannot go unseen.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from selenite.model.config import ModelConfig
from selenite.ops.block_routing import sum_keys
from selenite.ops.slots import empty_slots, store_rows


def entry_shapes(
    config: ModelConfig, layout: Literal["latent", "expanded"]
) -> tuple[tuple[int, ...], ...]:
    """Shapes of the tensors that a slot of one layer holds: heads and their width.

    In the latent layout there is one, the latent and behind it the rotated key.
    """
    if config.attention == "mla" and layout == "latent":
        return ((1, config.kv_lora_rank + config.qk_rope_head_dim),)
    return (config.kv_heads, config.qk_dim), (config.kv_heads, config.v_dim)


class EntryCache:
    """Entries of ``num_slots`` slots in every layer (an ``EntryStore``).

    With a ``page_size`` it can hold sums of the keys of each page, and it can hold biases of slots;
    they take memory in the layers in which ``pool`` or ``biases`` was called.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_slots: int,
        dtype: torch.dtype,
        layout: Literal["latent", "expanded"] = "expanded",
        device: torch.device | str = "cpu",
        page_size: int | None = None,
    ) -> None:
        self._page_size = page_size
        self._page_sums: dict[int, Tensor] = {}
        self._bias_shape = (num_slots, config.num_heads)
        self._biases: dict[int, Tensor] = {}
        self.device = torch.device(device)
        self.layout: Literal["latent", "expanded"] = layout
        shapes = entry_shapes(config, layout)
        self._layers = [
            tuple(empty_slots(num_slots, shape, dtype, device) for shape in shapes)
            for _ in range(config.num_layers + config.num_nextn_predict_layers)
        ]

    def write(self, layer: int, entry: tuple[Tensor, ...], slots_T: Tensor) -> None:
        """Stores each row's entry in its slot; a slot of -1 stores nothing."""
        for stored, rows in zip(self._layers[layer], entry, strict=True):
            store_rows(stored, rows, slots_T)

    def read(self, layer: int) -> tuple[Tensor, ...]:
        """The layer's entries by slot."""
        return self._layers[layer]

    def pool(self, layer: int, pages_X: Tensor) -> None:
        """Sums the keys of full pages, for rows that choose blocks by them."""
        assert self._page_size is not None, "entries without pages"
        k_PZMH = self._layers[layer][0].unflatten(0, (-1, self._page_size))
        if layer not in self._page_sums:
            self._page_sums[layer] = torch.zeros_like(k_PZMH[:, 0], dtype=torch.float32)
        self._page_sums[layer][pages_X] = sum_keys(k_PZMH[pages_X])

    def page_sums(self, layer: int) -> Tensor:
        """What ``pool`` summed: float32 ``[pages, M, H]``."""
        return self._page_sums[layer]

    def biases(self, layer: int) -> Tensor:
        """What is added to the logits of each slot: float32 ``[S, N]``, zero until it is set."""
        if layer not in self._biases:
            self._biases[layer] = torch.zeros(self._bias_shape, device=self.device)
        return self._biases[layer]

    def forget_biases(self, slots_X: Tensor) -> None:
        """Makes the biases of slots zero in all layers."""
        for bias_SN in self._biases.values():
            bias_SN[slots_X] = 0
