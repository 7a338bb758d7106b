"""A step on the model: chunks to packed tokens and a context, hidden states back.

Letters: ``T`` rows of the step, ``D`` model width, ``B`` sequences, ``P`` pages of the longest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from selenite import log
from selenite.errors import ConfigError
from selenite.model.cache import EntryCache
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import AttentionContext, Pages
from selenite.serve.engine.adapters import Adapters
from selenite.serve.engine.compression import Compressor, room_for_queries
from selenite.serve.engine.recorded import RecordedDecode
from selenite.serve.engine.request import Chunk
from selenite.serve.engine.routing import RoutingRecord

logger = logging.getLogger(__name__)


class Runner:
    """A model, its adapters, and the cached entries of all pages.

    With ``records_routing``, for a model with experts, also which of them computed each entry.
    """

    def __init__(
        self,
        model: Transformer,
        num_pages: int,
        page_size: int,
        layout: Literal["latent", "expanded"],
        records_routing: bool = False,
    ) -> None:
        self.model = model
        self.num_pages = num_pages
        self.page_size = page_size
        self.layout: Literal["latent", "expanded"] = layout
        self.device = model.embed.weight.device
        self.adapters = Adapters(model)
        self.routing: RoutingRecord | None = None
        if records_routing:
            self.routing = RoutingRecord(model.config, num_pages * page_size, page_size)
        self.allocate_entries()

    def allocate_entries(self) -> None:
        """Takes the memory of the cache."""
        self.entries = EntryCache(
            self.model.config,
            self.num_pages * self.page_size,
            self.model.compute_dtype,
            self.layout,
            self.device,
            self.page_size,
        )
        self.compressor = Compressor(self.model.config, self.entries, self.page_size)
        self._record_anew()

    def free_entries(self) -> None:
        """Gives the memory of the cache back; no step may run until it is taken again."""
        del self.entries, self._recorded, self.compressor
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Computes the chunks' tokens and stores their entries; each chunk's hidden states."""
        self.adapters.use(chunks[0].request.adapter)
        tokens_T = self._integers([t for c in chunks for t in c.request.tokens[c.start : c.stop]])
        context = self.context(chunks)
        output = self.model(tokens_T, context.positions_T, context)
        if context.kept_queries is not None:
            _hand_out_queries(chunks, context.kept_queries.stored_LXNH)
        for sequence, chunk in enumerate(chunks):
            if chunk.is_summed:
                layers = range(self.model.config.num_layers)
                sums = [context.derived["sums", layer, sequence] for layer in layers]
                chunk.request.add_sums(torch.stack(sums))
        if self.routing is not None:
            assert context.pages is not None
            assert output.expert_ids_LTK is not None
            self.routing.write(context.pages.write_T, output.expert_ids_LTK)
        return list(output.hidden_TD.split([chunk.stop - chunk.start for chunk in chunks]))

    @torch.inference_mode()
    def decode(self, chunks: Sequence[Chunk]) -> Tensor | None:
        """Logits ``[B, V]`` of a step in which every sequence has one token, good until the next
        step; None: such steps cannot be played from a tape, and ``run`` computes them."""
        if self.routing is not None:
            log.once(logger, "decode steps are not recorded: routing is", logging.INFO)
            return None
        if any(chunk.is_summed for chunk in chunks):
            log.once(logger, "decode steps that sum attention are not recorded", logging.INFO)
            return None
        if any(chunk.request.reading.routing for chunk in chunks):
            log.once(logger, "decode steps that choose blocks are not recorded", logging.INFO)
            return None
        if chunks[0].request.adapter is not None:
            log.once(logger, "decode steps with an adapter are not recorded", logging.INFO)
            return None
        self.adapters.use(None)
        return self._recorded.logits(chunks)

    @torch.inference_mode()
    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Logits ``[T, V]`` of hidden states of the last step."""
        return self.model.logits(hidden_TD)

    def swap(self, model: Transformer) -> None:
        """Goes on with other weights; the adapters stay."""
        old, new = vars(self.model.config), vars(model.config)
        differing = [f"{key}={new[key]!r}, not {old[key]!r}" for key in old if new[key] != old[key]]
        if differing:
            raise ConfigError(
                f"the new weights are of another model ({'; '.join(differing)}); start another "
                "server for it"
            )
        self.adapters.move_to(model)
        self.model = model
        self._record_anew()

    def _record_anew(self) -> None:
        slots = self.num_pages * self.page_size
        self._recorded = RecordedDecode(self.model, self.entries, slots, self.page_size)

    def context(self, chunks: Sequence[Chunk]) -> AttentionContext:
        """Where the rows of a step are, what they see, and where their entries go."""
        positions: list[int] = []
        sequences: list[int] = []
        slots: list[int] = []
        segments: list[tuple[int, int, int]] = []
        places: list[int] = []  # of queries that are kept
        kept = 0
        most = max(len(chunk.request.pages) for chunk in chunks)
        size = self.page_size
        for index, chunk in enumerate(chunks):
            pages, merged = chunk.request.pages, chunk.request.merged
            rows = range(chunk.start, chunk.stop)
            segments.append((len(positions), len(positions) + len(rows), chunk.start - merged))
            positions += rows
            sequences += [index] * len(rows)
            numbers = range(chunk.start - merged, chunk.stop - merged)
            slots += [pages[number // size] * size + number % size for number in numbers]
            kept += chunk.num_queries
            places += [-1] * (len(rows) - chunk.num_queries)
            places += range(kept - chunk.num_queries, kept)
        table = [c.request.pages + [-1] * (most - len(c.request.pages)) for c in chunks]
        queries = room_for_queries(self.model, self._integers(places), kept) if kept else None
        pages_of_step = Pages(
            size=size,
            table_BP=self._integers(table),
            lengths=tuple(chunk.stop - chunk.request.merged for chunk in chunks),
            write_T=self._integers(slots),
            store=self.entries,
        )
        return AttentionContext(
            self._integers(positions),
            self._integers(sequences),
            tuple(segments),
            pages=pages_of_step,
            routing=tuple(chunk.request.reading.routing for chunk in chunks),
            selection=tuple(chunk.selection for chunk in chunks),
            slot_biases=tuple(chunk.request.merged > 0 for chunk in chunks),
            summed=tuple(chunk.is_summed for chunk in chunks),
            kept_queries=queries,
        )

    def _integers(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)


def _hand_out_queries(chunks: Sequence[Chunk], stored_LXNH: Tensor) -> None:
    """Gives requests the queries of their last rows, of which each chunk has some in order."""
    rows = iter(stored_LXNH.unbind(1))
    for chunk in chunks:
        if chunk.num_queries:
            chunk.request.keep_queries(next(rows) for _ in range(chunk.num_queries))
