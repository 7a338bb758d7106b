"""A step on the model: chunks to packed tokens and a context, hidden states back.

Letters: ``T`` rows of the step, ``D`` model width, ``B`` sequences, ``P`` pages of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from selenite.errors import ConfigError
from selenite.model.cache import EntryCache
from selenite.model.layers import Adapter
from selenite.model.lora import put_adapters, take_adapters
from selenite.model.lora_files import load_lora, read_lora_config
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import AttentionContext, Pages
from selenite.serve.engine.recorded import RecordedDecode
from selenite.serve.engine.request import Chunk


class Runner:
    """A model, its adapters, and the cached entries of all pages."""

    def __init__(
        self,
        model: Transformer,
        num_pages: int,
        page_size: int,
        layout: Literal["latent", "expanded"],
    ) -> None:
        self.model = model
        self.num_pages = num_pages
        self.page_size = page_size
        self.layout: Literal["latent", "expanded"] = layout
        self.device = model.embed.weight.device
        self._adapters: dict[str, dict[str, Adapter]] = {}
        self._adapter: str | None = None  # the one that is in the model
        self._num_loaded = 0
        self._generations: dict[str, int] = {}
        self.allocate_entries()

    def allocate_entries(self) -> None:
        """Takes the memory of the cache."""
        self.entries = EntryCache(
            self.model.config,
            self.num_pages * self.page_size,
            self.model.compute_dtype,
            self.layout,
            self.device,
        )
        self._record_anew()

    def free_entries(self) -> None:
        """Gives the memory of the cache back; no step may run until it is taken again."""
        del self.entries, self._recorded
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Computes the chunks' tokens and stores their entries; each chunk's hidden states."""
        self._use(chunks[0].request.adapter)
        tokens_T = self._integers([t for c in chunks for t in c.request.tokens[c.start : c.stop]])
        context = self.context(chunks)
        hidden_TD = self.model(tokens_T, context.positions_T, context).hidden_TD
        return list(hidden_TD.split([chunk.stop - chunk.start for chunk in chunks]))

    @torch.inference_mode()
    def decode(self, chunks: Sequence[Chunk]) -> Tensor | None:
        """Logits ``[B, V]`` of a step in which every sequence has one token, good until the next
        step; None: such steps cannot be played from a tape, and ``run`` computes them."""
        if chunks[0].request.adapter is not None:
            return None
        self._use(None)
        return self._recorded.logits(chunks)

    @torch.inference_mode()
    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Logits ``[T, V]`` of hidden states of the last step."""
        return self.model.logits(hidden_TD)

    def swap(self, model: Transformer) -> None:
        """Goes on with other weights; the adapters stay."""
        if model.config != self.model.config:
            raise ConfigError("the new weights are of another model; start another server for it")
        self._use(None)
        self.model = model
        self._record_anew()

    def load_adapter(self, name: str, directory: Path) -> None:
        """Reads an adapter; it takes part when a step's requests name it."""
        if name in self._adapters:
            raise ConfigError(f"adapter {name!r} is loaded already; unload it first")
        self._use(None)
        targets = read_lora_config(directory, self.model).targets
        if "head" in targets and self.model.config.tie_embeddings:
            raise ConfigError(
                f"adapter {name!r} changes the head, which this model shares with its embedding; "
                "merge it (selenite convert) and serve the merged model"
            )
        load_lora(self.model, directory)
        self._adapters[name] = take_adapters(self.model)
        self._num_loaded += 1
        self._generations[name] = self._num_loaded

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter."""
        self.check_adapter(name)
        self._use(None)
        del self._adapters[name]

    def adapter_key(self, name: str | None) -> str:
        """What entries depend on: another adapter may be loaded under the same name."""
        return "" if name is None else f"{name} {self._generations[name]}"

    def check_adapter(self, name: str | None) -> None:
        """Raises ``ConfigError`` for an adapter that is not loaded."""
        if name is not None and name not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            raise ConfigError(f"adapter {name!r} is not loaded (loaded: {known})")

    def _record_anew(self) -> None:
        slots = self.num_pages * self.page_size
        self._recorded = RecordedDecode(self.model, self.entries, slots, self.page_size)

    def _use(self, name: str | None) -> None:
        if name == self._adapter:
            return
        take_adapters(self.model)
        if name is not None:
            put_adapters(self.model, self._adapters[name])
        self._adapter = name

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
