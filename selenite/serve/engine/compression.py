"""Requests whose tokens have fewer slots: KeepKV (arXiv 2504.09936) over pages.

Once its prompt is computed, and again when it has too many slots, a request's entries are merged
layer by layer into pages of its own, and its old pages are given back. What was published of them
stays in the prefix cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selenite.model.attention import softmax_scale
from selenite.model.cache import EntryCache
from selenite.model.config import ModelConfig
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import KeptQueries
from selenite.ops.slot_merging import Scores, Slots, choose_kept, merge_slots
from selenite.serve.engine.request import Request


def room_for_queries(model: Transformer, place_T: Tensor, count: int) -> KeptQueries:
    """For the queries of ``count`` rows of a step, in all layers."""
    config = model.config
    shape = config.num_layers, count, config.num_heads, config.qk_dim
    stored = torch.empty(shape, dtype=model.compute_dtype, device=place_T.device)
    return KeptQueries(place_T, stored)


@dataclass(frozen=True)
class Merged:
    """Entries of a request that have no pages yet."""

    slots: list[Slots]  # of each layer
    sums_LMB: Tensor | None


class Compressor:
    """Merges slots of requests in a cache of pages.

    Args:
        config: of the model.
        entries: where its entries are.
        page_size: slots of a page.
    """

    def __init__(self, config: ModelConfig, entries: EntryCache, page_size: int) -> None:
        self._config = config
        self._scale = softmax_scale(config)
        self._entries = entries
        self._page_size = page_size

    @torch.inference_mode()
    def merge(self, request: Request) -> Merged:
        """What the request's entries become; they stay as they are."""
        compression = request.reading.compression
        assert compression is not None
        assert len(request.queries) == compression.window, len(request.queries)
        mode = compression.mode
        place_S = self._slots(request.pages, request.slots)
        queries_QLNH = torch.stack(tuple(request.queries))
        merged, sums = list[Slots](), list[Tensor]()
        for layer in range(self._config.num_layers):
            k_XMH, v_XMW = self._entries.read(layer)
            bias_XN = self._entries.biases(layer)
            slots = Slots(k_XMH[place_S], v_XMW[place_S], bias_XN[place_S])
            scores = Scores.of(queries_QLNH[:, layer], slots, self._scale)
            sums_MS = request.sums
            if sums_MS is not None:
                sums_MS = _summed(sums_MS[layer], scores.share_QNS)
            kept_MB = choose_kept(
                *(scores.share_QNS, slots.k_SMH.shape[1], compression.budget),
                *(compression.num_sinks, compression.window),
                mode.keep,
                sums_MS,
            )
            if sums_MS is not None:
                sums.append(sums_MS.gather(1, kept_MB))
            fewer, _ = merge_slots(
                *(slots, scores, kept_MB),
                merge=mode.merge,
                likeness=mode.likeness,
                num_sinks=compression.num_sinks,
                decay=mode.decay,
            )
            merged.append(fewer)
        return Merged(merged, torch.stack(sums) if sums else None)

    @torch.inference_mode()
    def store(self, request: Request, merged: Merged) -> None:
        """Writes merged entries into the first slots of the request's pages."""
        request.sums = merged.sums_LMB
        for layer, slots in enumerate(merged.slots):
            place_B = self._slots(request.pages, len(slots.k_SMH))
            k_XMH, v_XMW = self._entries.read(layer)
            k_XMH[place_B], v_XMW[place_B] = slots.k_SMH, slots.v_SMW
            self._entries.biases(layer)[place_B] = slots.bias_SN

    @torch.inference_mode()
    def forget(self, pages: list[int]) -> None:
        """Makes biases of pages zero that whoever has them next must not see."""
        if pages:
            self._entries.forget_biases(self._slots(pages, len(pages) * self._page_size))

    def _slots(self, pages: list[int], count: int) -> Tensor:
        page_P = torch.tensor(pages, dtype=torch.int64, device=self._entries.device)
        offset = torch.arange(self._page_size, device=page_P.device)
        return (page_P[:, None] * self._page_size + offset).reshape(-1)[:count]


def _summed(sums_MX: Tensor, share_QNS: Tensor) -> Tensor:
    """Sums ``[M, S]``: those that were kept of the first slots, and what the scoring queries add.
    Where nothing was merged yet, all rows' are there already."""
    M, X = sums_MX.shape
    S = share_QNS.shape[2]
    if X == S:
        return sums_MX
    sums_MS = share_QNS.sum(0).unflatten(0, (M, -1)).sum(1)
    sums_MS[:, :X] += sums_MX
    return sums_MS
