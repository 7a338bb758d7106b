"""Decode steps from a tape: one token of each sequence, recorded once for each number of them.

The step's inputs lie in tensors that stay; a step fills them, plays the tape and has its logits.
Where some rows choose tokens all do, those that read everything having no limit: so requests of
both kinds share a tape. What cannot be recorded (``ops/tape.py``) runs as any other step, and the
reason is said once.

Letters: ``B`` sequences, ``P`` pages of the longest there can be, ``V`` vocabulary.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selenite import log
from selenite.errors import UnsupportedError
from selenite.model.cache import EntryCache
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import (
    AttentionContext,
    Pages,
    TokenSelection,
)
from selenite.ops.linear import most_recorded
from selenite.ops.tape import Tape, record
from selenite.serve.engine.compression import room_for_queries
from selenite.serve.engine.request import Chunk

logger = logging.getLogger(__name__)

_MOST_CHOOSERS = 4  # sets of layers that choose, for which there are tapes: the last ones
_MOST_LOGITS = 1 << 24  # that a layer's rows choose by


@dataclass(frozen=True)
class _Kind:
    """What one tape serves."""

    num_sequences: int
    merges: bool  # slots of some are merged, or will be
    choosers: tuple[int, ...] = ()  # layers in which rows choose tokens


class RecordedDecode:
    """Plays decode steps of a model over its cached entries, both of which must stay as they are.

    Args:
        model: without an adapter.
        entries: where its entries are.
        num_slots: of ``entries``.
        page_size: slots of a page.
    """

    def __init__(
        self, model: Transformer, entries: EntryCache, num_slots: int, page_size: int
    ) -> None:
        self._model = model
        model.rope  # noqa: B018 - made at its first use, which a tape could not hold
        self._entries = entries
        self._page_size = page_size
        longest = min(model.config.max_positions, num_slots)
        self._most_pages = -(-longest // page_size)
        self._steps: dict[_Kind, _Step] = {}
        self._choosers: list[tuple[int, ...]] = []  # that have tapes, the last used one last
        self._refused: set[tuple[bool, tuple[int, ...]]] = set()  # kinds that no tape can hold
        self._arena = torch.empty(0, dtype=torch.uint8)  # one step is played at a time
        self._most_sequences = most_recorded(model.embed.weight)
        self._is_possible = self._most_sequences > 0
        if not self._is_possible:
            kept = f"{model.compute_dtype} on {model.embed.weight.device.type}"
            reason = f"our products do not serve {kept} here (selenite doctor says why)"
            log.once(logger, f"decode steps are not recorded: {reason}", logging.INFO)

    def logits(self, chunks: Sequence[Chunk]) -> Tensor | None:
        """Logits ``[B, V]`` of chunks of one token each, good until the next step; None where such
        steps, or so many sequences, cannot be recorded."""
        kind = self._kind(chunks)
        if kind is None or (kind.merges, kind.choosers) in self._refused:
            return None
        step = self._steps.get(kind)
        if step is None:
            for layer in range(self._model.config.num_layers if kind.merges else 0):
                self._entries.biases(layer)  # a tape could not hold that they are allocated
            step = _Step(kind, self._model, self._most_pages, self._page_size, self._entries)
        step.fill(chunks)
        if step.tape is None:
            try:
                step.tape = record(lambda: step.run(self._model))
            except UnsupportedError as error:
                log.once(logger, f"decode steps are not recorded: {error}", logging.INFO)
                self._refused.add((kind.merges, kind.choosers))
                return None
            self._steps[kind] = step
            self._place(step.tape)
        logits_BV = step.tape.play()[0]
        step.hand_out_queries(chunks)
        return logits_BV

    def _kind(self, chunks: Sequence[Chunk]) -> _Kind | None:
        """The tape that serves a step; None: none can."""
        if not self._is_possible or len(chunks) > self._most_sequences:
            return None
        merges = any(chunk.request.merged or chunk.num_queries for chunk in chunks)
        selections = [chosen for chunk in chunks if (chosen := chunk.selection) is not None]
        if not selections:
            return _Kind(len(chunks), merges)
        choosers = {selection.layers for selection in selections}
        logits = len(chunks) * self._model.config.num_heads * self._most_pages * self._page_size
        reason = None
        if any(selection.share != "layer" for selection in selections):
            reason = "heads choose for themselves"
        elif len(choosers) > 1:
            reason = "rows choose in different layers"
        elif logits > _MOST_LOGITS:
            reason = "what rows choose by would take too much memory"
        if reason is not None:
            log.once(logger, f"decode steps are not recorded where {reason}", logging.INFO)
            return None
        kind = _Kind(len(chunks), merges, choosers.pop())
        self._note(kind.choosers)
        return kind

    def _note(self, choosers: tuple[int, ...]) -> None:
        """That rows choose in these layers; tapes of those that have waited longest are dropped."""
        if choosers in self._choosers:
            self._choosers.remove(choosers)
        self._choosers.append(choosers)
        for old in self._choosers[:-_MOST_CHOOSERS]:
            self._choosers.remove(old)
            self._steps = {kind: s for kind, s in self._steps.items() if kind.choosers != old}

    def _place(self, tape: Tape) -> None:
        if tape.num_bytes <= self._arena.numel():
            tape.place(self._arena)
            return
        self._arena = torch.empty(tape.num_bytes, dtype=torch.uint8)
        for step in self._steps.values():
            assert step.tape is not None
            step.tape.place(self._arena)


class _Step:
    """The inputs of a step of ``B`` sequences, and its tape once it was recorded."""

    def __init__(
        self, kind: _Kind, model: Transformer, P: int, page_size: int, entries: EntryCache
    ) -> None:
        B = kind.num_sequences
        self.tape: Tape | None = None
        self._page_size = page_size
        self._tokens_B = torch.zeros(B, dtype=torch.int64)
        self._table_BP = torch.full((B, P), -1, dtype=torch.int64)
        self._known: list[list[int]] = [[] for _ in range(B)]  # pages that the table has
        self._limits_B3 = torch.zeros(B, 3, dtype=torch.int64) if kind.choosers else None
        write_B = torch.zeros(B, dtype=torch.int64)
        # How much it reads is in the limits.
        selection = TokenSelection(1, kind.choosers, num_sinks=0) if kind.choosers else None
        self._context = AttentionContext(
            torch.zeros(B, dtype=torch.int64),
            torch.arange(B),
            tuple((row, row + 1, 0) for row in range(B)),
            pages=Pages(page_size, self._table_BP, (1,) * B, write_B, entries),
            routing=(None,) * B,
            selection=(selection,) * B,
            token_limits_T3=self._limits_B3,
            slot_biases=(kind.merges,) * B,
            kept_queries=room_for_queries(model, torch.arange(B), B) if kind.merges else None,
        )
        # What kernels read of the segments, where every step has its own positions.
        self._segments_B3 = self._context.segments_B3
        self._positions_B, self._write_B = self._context.positions_T, write_B
        self._numpy = [
            tensor.numpy()
            for tensor in (
                self._tokens_B,
                self._positions_B,
                self._write_B,
                self._segments_B3[:, 2],
            )
        ]

    def fill(self, chunks: Sequence[Chunk]) -> None:
        """Sets the inputs."""
        size = self._page_size
        tokens, positions, write, first = self._numpy
        for row, chunk in enumerate(chunks):
            pages, position = chunk.request.pages, chunk.start
            place = position - chunk.request.merged
            if pages != self._known[row]:
                self._table_BP[row, : len(pages)] = torch.tensor(pages)
                self._known[row] = list(pages)
            tokens[row] = chunk.request.tokens[position]
            positions[row], first[row] = position, place
            write[row] = pages[place // size] * size + place % size
            if self._limits_B3 is not None:
                chosen = chunk.selection
                limits = sys.maxsize, 0, 1
                if chosen is not None:
                    limits = chosen.budget, chosen.num_sinks, chosen.num_recent
                self._limits_B3[row] = torch.tensor(limits)

    def hand_out_queries(self, chunks: Sequence[Chunk]) -> None:
        """Gives them to requests that will need them; the next step overwrites what is stored."""
        kept = self._context.kept_queries
        for row, chunk in enumerate(chunks):
            if chunk.num_queries:
                assert kept is not None
                chunk.request.keep_queries([kept.stored_LXNH[:, row].clone()])

    def run(self, model: Transformer) -> list[Tensor]:
        """The step by the model itself."""
        hidden_BD = model(self._tokens_B, self._positions_B, self._context).hidden_TD
        return [model.logits(hidden_BD)]
