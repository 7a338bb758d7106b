"""What the rows of a step may see: the one record in which trainer and engine differ.

``ops.attention.attend`` obeys every field. The model passes the record through and stores entries
where it says.

Letters: ``T`` rows of the step, ``S`` keys (the rows themselves, or all slots of the pages),
``N`` query heads, ``M`` key/value heads, ``H`` key width, ``W`` value width, ``B`` sequences,
``P`` pages of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor


class EntryStore(Protocol):
    """Where cached entries live; written and read by the model's attention, layer by layer."""

    layout: Literal["latent", "expanded"]

    def write(self, layer: int, entry: tuple[Tensor, ...], slots_T: Tensor) -> None:
        """Stores each row's entry in its slot; a slot of -1 stores nothing."""
        ...

    def read(self, layer: int) -> tuple[Tensor, ...]:
        """The layer's entries by slot; slots never written hold anything, NaN included."""
        ...


@dataclass(frozen=True)
class Pages:
    """Where the keys of a step are, when they are cached. Written by the driver of the model."""

    size: int  # slots in a page
    table_BP: Tensor  # int64: page of each sequence's n-th page; unused tail holds -1
    lengths: tuple[int, ...]  # entries of each sequence after this step's writes
    write_T: Tensor  # int64: slot in which each row's entry is stored; -1: nowhere
    store: EntryStore

    def slots(self, sequence: int) -> Tensor:
        """Slots of a sequence's entries in logical order; int64 ``[lengths[sequence]]``."""
        length = self.lengths[sequence]
        num_pages = -(-length // self.size)
        pages = self.table_BP[sequence, :num_pages]
        offsets = torch.arange(self.size, device=pages.device)
        return (pages[:, None] * self.size + offsets).reshape(-1)[:length]


@dataclass(frozen=True)
class StatsRequest:
    """What else attention should report."""

    max_logit: Literal["exact", "bound"] | None = None
    """Per query head, over all rows: the maximum of the softmax input, or of the rows' log-sum-exp
    (never below the maximum, at most ln(keys) above it)."""
    lse: bool = False  # log-sum-exp of each row and head
    score_rows: tuple[int, ...] = ()  # rows whose softmax input is returned


@dataclass(frozen=True)
class AttentionContext:
    """One step: who each row is and what it may see. ``None`` always means "not used".

    Rows of a sequence are contiguous. Without ``parent_T``, their positions are consecutive. A row
    sees the entries of its own sequence at its own position and before.
    """

    positions_T: Tensor  # int64: position of the row in its sequence
    sequence_T: Tensor  # int64: index of the row's sequence in the step
    segments: tuple[tuple[int, int, int], ...]
    """Of each sequence: first row, row after the last, position of the first row."""
    pages: Pages | None = None
    """None: the keys are the step's own rows (training)."""
    bias: Tensor | None = None
    """float32 added to the scaled logits, by key and head: ``[S, M]`` or ``[S, N]``."""
    parent_T: Tensor | None = None
    """int64: the row's parent row in a token tree; -1 for a root. A row then sees the sequence's
    entries from before the step, its ancestors and itself. With ``segments``' first position as
    the number of entries before the step."""
    shared_prefix: tuple[int, ...] | None = None
    """Of each sequence: the sequence whose rows all come before its own, or -1. Its positions, and
    the first one in ``segments``, go on after the prefix, which has no prefix itself. Not with
    pages."""
    select: Tensor | None = None
    """bool ``[T, M, S]``: keys that a row may read in a key/value head, of those it sees."""
    stats: StatsRequest = StatsRequest()

    @cached_property
    def segments_B3(self) -> Tensor:
        """The segments for a kernel over pages: int64, made once for all layers."""
        assert self.pages is not None
        for sequence, (start, stop, first) in enumerate(self.segments):
            keys = first + stop - start
            assert keys <= self.pages.lengths[sequence], (sequence, keys, self.pages.lengths)
        return torch.tensor(self.segments, dtype=torch.int64)

    def extras(self) -> set[str]:
        """Names of the optional fields in use, for a fast path to check against its own."""
        names = ("bias", "parent_T", "shared_prefix", "select")
        used = {name for name in names if getattr(self, name) is not None}
        if self.stats.score_rows:
            used.add("score_rows")
        return used


@dataclass(frozen=True)
class Attended:
    """What ``attend`` returns; statistics are float32, without gradient, None unless requested."""

    out_TNW: Tensor
    max_logit_N: Tensor | None = None
    lse_TN: Tensor | None = None
    scores: dict[int, Tensor] | None = None
    """By row of ``score_rows``: the softmax input ``[N, keys seen]`` in logical order; with
    ``select``, -inf at the keys that a head may not read."""


def packed_context(lengths: list[int], stats: StatsRequest | None = None) -> AttentionContext:
    """The context of whole documents laid one after another: what training uses."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    positions = torch.cat([torch.arange(length) for length in lengths])
    sequences = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    segments = tuple((starts[i], starts[i + 1], 0) for i in range(len(lengths)))
    return AttentionContext(positions, sequences, segments, stats=stats or StatsRequest())


def visible_rows(context: AttentionContext, row: int) -> Tensor:
    """Rows of the step that a row sees of its own sequence, in logical order."""
    device = context.positions_T.device
    if context.parent_T is None:
        start = context.segments[int(context.sequence_T[row])][0]
        return torch.arange(start, row + 1, device=device)
    lineage = [row]
    while (parent := int(context.parent_T[lineage[-1]])) >= 0:
        lineage.append(parent)
    return torch.tensor(lineage[::-1], device=device)


def visible_keys(context: AttentionContext, row: int) -> Tensor:
    """Keys that a row sees, in logical order: indices of rows, or of slots when there are pages."""
    sequence = int(context.sequence_T[row])
    start, stop, first = context.segments[sequence]
    device = context.positions_T.device
    own = visible_rows(context, row)
    if context.pages is not None:
        slots = context.pages.slots(sequence)
        assert len(slots) >= first + stop - start, (len(slots), first, start, stop)
        return torch.cat((slots[:first], slots[first + own - start]))
    prefix = torch.arange(0, device=device)
    if context.shared_prefix is not None and context.shared_prefix[sequence] >= 0:
        prefix_start, prefix_stop, prefix_first = context.segments[context.shared_prefix[sequence]]
        assert prefix_first == 0, f"the prefix of sequence {sequence} has a prefix itself"
        prefix = torch.arange(prefix_start, prefix_stop, device=device)
    assert first == len(prefix), f"sequence {sequence} starts at {first}, after {len(prefix)} keys"
    return torch.cat((prefix, own))


def reduce_max(stats: StatsRequest, max_TN: Tensor | None, lse_TN: Tensor) -> Tensor | None:
    """The requested statistic of QK-Clip from the rows' maxima and log-sum-exps; ``[N]``."""
    if stats.max_logit is None:
        return None
    if stats.max_logit == "bound":
        return lse_TN.amax(0)
    assert max_TN is not None
    return max_TN.amax(0)
