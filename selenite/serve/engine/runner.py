"""A step on the model: chunks to packed tokens and a context, hidden states back.

Letters: ``T`` rows of the step, ``D`` model width, ``B`` sequences, ``P`` pages of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from selenite.model.cache import EntryCache
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import AttentionContext, Pages
from selenite.serve.engine.request import Chunk


class Runner:
    """A model and the cached entries of all pages."""

    def __init__(
        self,
        model: Transformer,
        num_pages: int,
        page_size: int,
        layout: Literal["latent", "expanded"],
    ) -> None:
        self.model = model
        self.page_size = page_size
        self.device = model.embed.weight.device
        self.entries = EntryCache(
            model.config, num_pages * page_size, model.compute_dtype, layout, self.device
        )

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Computes the chunks' tokens and stores their entries; each chunk's hidden states."""
        tokens_T = self._integers([t for c in chunks for t in c.request.tokens[c.start : c.stop]])
        context = self.context(chunks)
        hidden_TD = self.model(tokens_T, context.positions_T, context).hidden_TD
        return list(hidden_TD.split([chunk.stop - chunk.start for chunk in chunks]))

    @torch.inference_mode()
    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Logits ``[T, V]`` of hidden states."""
        return self.model.logits(hidden_TD)

    def context(self, chunks: Sequence[Chunk]) -> AttentionContext:
        """Where the rows of a step are, what they see, and where their entries go."""
        positions: list[int] = []
        sequences: list[int] = []
        slots: list[int] = []
        segments: list[tuple[int, int, int]] = []
        most = max(len(chunk.request.pages) for chunk in chunks)
        size = self.page_size
        for index, chunk in enumerate(chunks):
            pages = chunk.request.pages
            rows = range(chunk.start, chunk.stop)
            segments.append((len(positions), len(positions) + len(rows), chunk.start))
            positions += rows
            sequences += [index] * len(rows)
            slots += [pages[p // size] * size + p % size for p in rows]
        table = [c.request.pages + [-1] * (most - len(c.request.pages)) for c in chunks]
        pages_of_step = Pages(
            size=size,
            table_BP=self._integers(table),
            lengths=tuple(chunk.stop for chunk in chunks),
            write_T=self._integers(slots),
            store=self.entries,
        )
        return AttentionContext(
            self._integers(positions),
            self._integers(sequences),
            tuple(segments),
            pages=pages_of_step,
        )

    def _integers(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)
