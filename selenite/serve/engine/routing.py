"""Which experts computed each cached entry: beside the entries, by slot.

Whoever reads a page reads the ids of the pass that computed it, so that prefixes found in the
cache, prompts that were computed for a group's first request, chunks and preemption need no rules
of their own. Written on every step; a request that asks gets, with each token that is drawn, the
ids of the rows that this token was the first to need.

Letters: ``S`` slots, ``T`` rows of a step, ``L`` layers with experts, ``K`` experts of a token,
``R`` rows of a request.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from selenite.model.config import ModelConfig
from selenite.serve.engine.request import Chunk


class RoutingRecord:
    """Expert ids of all slots, in the memory of the host.

    Args:
        config: of a model with experts.
        num_slots: of the cache.
        page_size: slots of a page.
    """

    def __init__(self, config: ModelConfig, num_slots: int, page_size: int) -> None:
        moe = config.moe
        assert moe is not None
        layers = sum(config.is_moe_layer(layer) for layer in range(config.num_layers))
        # uint16 holds every number of experts that a config can have.
        self._ids_SLK = np.zeros(
            (num_slots, layers, moe.experts_per_token),
            dtype=np.uint8 if moe.num_experts <= 256 else np.uint16,
        )
        self._page_size = page_size

    def write(self, slots_T: Tensor, ids_LTK: Tensor) -> None:
        """What a step's rows used, which lie in these slots."""
        slots = slots_T.numpy(force=True)
        self._ids_SLK[slots] = ids_LTK.numpy(force=True).transpose(1, 0, 2)

    def read(self, chunks: Sequence[Chunk]) -> None:
        """Gives each request that asks, and draws a token after this step, what it has not got yet.

        Before pages are published: a page may be exchanged then for an equal one, which other rows
        computed.
        """
        size = self._page_size
        for chunk in chunks:
            request = chunk.request
            if request.wants_routing and chunk.samples:
                # Rows of which a token was drawn before, maybe under other weights, stand.
                rows = np.arange(sum(map(len, request.expert_ids)), chunk.stop)
                slots = np.array(request.pages)[rows // size] * size + rows % size
                request.expert_ids.append(self._ids_SLK[slots])
