"""What the rows of a step may see: the one record in which trainer and engine differ.

``ops.attention.attend`` obeys every field. The model passes the record through and stores entries
where it says.

Letters: ``T`` rows of the step, ``S`` keys (the rows themselves, or all slots of the pages),
``N`` query heads, ``M`` key/value heads, ``H`` key width, ``W`` value width, ``B`` sequences,
``P`` pages of a sequence, ``X`` pages that a step fills.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

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

    def pool(self, layer: int, pages_X: Tensor) -> None:
        """Sums the keys of full pages, for rows that choose blocks by them."""
        ...

    def page_sums(self, layer: int) -> Tensor:
        """What ``pool`` summed: float32 ``[pages, M, H]``."""
        ...

    def biases(self, layer: int) -> Tensor:
        """What is added to the logits of each slot: float32 ``[S, N]``."""
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
class BlockRouting:
    """Each row reads some blocks of keys instead of all (MoBA, arXiv 2502.13189, section 2.2).

    Blocks are counted from the sequence's first key. A row reads its own block up to itself, and of
    the blocks before it those whose mean key has the largest products with its query.
    """

    block_size: int
    top_k: int  # blocks that a row reads, its own included
    has_sink: bool = False  # the sequence's first block is one of them, whatever its score
    heads_together: int = 1
    """Consecutive query heads that choose the same blocks, by the sum of their products."""
    full_layers: tuple[int, ...] = ()
    """Layers in which rows read everything, ascending."""


@dataclass(frozen=True)
class TokenSelection:
    """A decoding row reads some tokens instead of all (TidalDecode, arXiv 2410.05076, section 3).

    In each of ``layers`` it reads everything and chooses: the tokens that it attends to most. The
    layers after it, up to the next one that chooses, read these and no others. Layers before the
    first read everything. What is chosen lasts for a step.
    """

    budget: int  # tokens that a row reads, itself included
    layers: tuple[int, ...]  # that choose, ascending
    share: Literal["head", "group", "layer"] = "layer"
    """Who has a set of tokens: each query head, as in the paper; each key/value head, by the sum of
    the attention of its query heads; or the layer, by that of all."""
    num_sinks: int = 4  # of the budget: the sequence's first tokens, whatever they are worth
    num_recent: int = 1  # of the budget: the last ones, the row itself included

    def __post_init__(self) -> None:
        assert self.num_recent >= 1, self
        assert self.num_sinks + self.num_recent <= self.budget, self


@dataclass(frozen=True)
class TokenStep:
    """What rows with a selection do in a layer, where they do not just read everything."""

    selection: TokenSelection
    chooses: bool  # while it reads everything; else it reads what was chosen


Way = BlockRouting | TokenStep | None
"""How rows of a sequence read in a layer; None: everything they see."""


@dataclass(frozen=True)
class StatsRequest:
    """What else attention should report."""

    max_logit: Literal["exact", "bound"] | None = None
    """Per query head, over all rows: the maximum of the softmax input, or of the rows' log-sum-exp
    (never below the maximum, at most ln(keys) above it)."""
    lse: bool = False  # log-sum-exp of each row and head
    score_rows: tuple[int, ...] = ()  # rows whose softmax input is returned


@dataclass(frozen=True)
class KeptQueries:
    """Room for the rotated queries of some rows, layer by layer."""

    place_T: Tensor  # int64: where each row's are stored; -1: nowhere
    stored_LXNH: Tensor


@dataclass(frozen=True)
class AttentionContext:
    """One step: who each row is and what it may see. ``None`` always means "not used".

    Rows of a sequence are contiguous. Without ``parent_T``, their positions are consecutive. A row
    sees the entries of its own sequence at its own position and before.
    """

    positions_T: Tensor  # int64: position of the row in its sequence
    sequence_T: Tensor  # int64: index of the row's sequence in the step
    segments: tuple[tuple[int, int, int], ...]
    """Of each sequence: first row, row after the last, keys before the first row. These are as many
    as its position, unless the sequence's slots have been merged."""
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
    slot_biases: tuple[bool, ...] | None = None
    """Of each sequence: whether its slots have biases in the store, because they stand for several
    tokens or for one among those that are gone. Of the others they are zero. With pages."""
    kept_queries: KeptQueries | None = None
    """Where ``attend`` leaves queries."""
    summed: tuple[bool, ...] | None = None
    """Of each sequence: whether ``attend`` leaves in ``derived``, under ``("sums", layer,
    sequence)``, what its rows attend to: float32 ``[M, S]`` by key, over rows and query heads. With
    pages."""
    select: Tensor | None = None
    """bool ``[T, M, S]``: keys that a row may read in a key/value head, of those it sees."""
    routing: tuple[BlockRouting | None, ...] | None = None
    """Of each sequence: how its rows choose blocks; None: they read everything they see. Not with
    ``parent_T``, ``bias`` or ``select``."""
    selection: tuple[TokenSelection | None, ...] | None = None
    """Of each sequence: how its row, which is its only one, chooses tokens; None: it does not. With
    pages, and not with ``routing`` of the same sequence, ``parent_T``, ``bias`` or ``select``."""
    token_limits_T3: Tensor | None = None
    """int64, of each row: how many tokens it reads, and sinks and recent ones of these, instead of
    its ``selection``'s, all of which are one; a row that has fewer reads all of them. For a step
    that is recorded once for all lengths and requests (``ops/tape.py``)."""
    sees_step: bool = True
    """False, with pages: a row sees its sequence's entries from before the step, and no row."""
    stats: StatsRequest = StatsRequest()
    derived: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What paths made of the record for all layers, by path."""

    @cached_property
    def segments_B3(self) -> Tensor:
        """The segments for a kernel over pages: int64, made once for all layers."""
        assert self.pages is not None
        for sequence, (start, stop, first) in enumerate(self.segments):
            keys = first + stop - start if self.sees_step else first
            assert keys <= self.pages.lengths[sequence], (sequence, keys, self.pages.lengths)
        return torch.tensor(self.segments, dtype=torch.int64)

    def ways(self, layer: int) -> tuple[tuple[Way, tuple[int, ...]], ...]:
        """How rows read in a layer, and which sequences do so. Made once for all layers of a
        kind."""
        kind = ("ways", self.chooses(layer), self._steps(layer))
        known = self.derived.get(kind)
        if known is None:
            known = self.derived[kind] = self._ways(*kind[1:])
        return known

    def chooses(self, layer: int) -> tuple[bool, ...] | None:
        """Of each sequence: whether its rows are to choose blocks in a layer; None: nowhere."""
        if self._routed is None:
            return None
        return tuple(r is not None and layer not in r.full_layers for r in self._routed)

    @cached_property
    def _routed(self) -> tuple[BlockRouting | None, ...] | None:
        return self.routing if self.routing is not None and any(self.routing) else None

    def _steps(self, layer: int) -> tuple[TokenStep | None, ...] | None:
        """Of each sequence: what a row that chooses tokens does in a layer; None: nowhere."""
        if self._selecting is None:
            return None
        return tuple(
            None if own is None or layer < own.layers[0] else TokenStep(own, layer in own.layers)
            for own in self._selecting
        )

    @cached_property
    def _selecting(self) -> tuple[TokenSelection | None, ...] | None:
        """Rows that have no more tokens than they may read do not choose."""
        if self.selection is None or self.token_limits_T3 is not None:
            return self.selection
        found = list[TokenSelection | None]()
        for own, (start, stop, first) in zip(self.selection, self.segments, strict=True):
            assert own is None or stop - start == 1, (start, stop)
            found.append(None if own is None or first + 1 <= own.budget else own)
        return tuple(found) if any(found) else None

    def _ways(
        self, is_chosen: tuple[bool, ...] | None, steps: tuple[TokenStep | None, ...] | None
    ) -> tuple[tuple[Way, tuple[int, ...]], ...]:
        if not any(is_chosen or ()) and not any(steps or ()):
            return ((None, tuple(range(len(self.segments)))),)
        found = dict[Way, list[int]]()
        for sequence, (start, stop, first) in enumerate(self.segments):
            way: Way = None if steps is None else steps[sequence]
            if is_chosen is not None and is_chosen[sequence]:
                assert self.routing is not None
                assert way is None, f"sequence {sequence} chooses blocks and tokens"
                routing = self.routing[sequence]
                assert routing is not None
                # Where some go on from others, they stay together.
                is_all = first + stop - start <= routing.top_k * routing.block_size
                way = None if is_all and self.shared_prefix is None else routing
            found.setdefault(way, []).append(sequence)
        return tuple((way, tuple(sequences)) for way, sequences in found.items())

    @cached_property
    def filled_X(self) -> Tensor | None:
        """Pages that the step fills, of sequences that choose blocks of whole pages; None: there
        are no such sequences."""
        pages, routings = self.pages, self.routing
        if pages is None or routings is None:
            return None
        pools = [r is not None and r.block_size % pages.size == 0 for r in routings]
        if not any(pools):
            return None
        is_pooled_B = torch.tensor(pools, device=self.positions_T.device)
        is_last_T = (self.positions_T + 1) % pages.size == 0
        return pages.write_T[is_last_T & is_pooled_B[self.sequence_T]] // pages.size

    def extras(self) -> set[str]:
        """Names of the optional fields in use, for a fast path to check against its own; without
        ``routing`` and ``selection``, which depend on the layer."""
        names = ("bias", "parent_T", "shared_prefix", "select")
        used = {name for name in names if getattr(self, name) is not None}
        if not self.sees_step:
            used.add("sees_step")
        if self.has_slot_biases:
            used.add("slot_biases")
        if self.stats.score_rows:
            used.add("score_rows")
        return used

    @cached_property
    def has_slot_biases(self) -> bool:
        """Whether a sequence's slots have biases."""
        return self.slot_biases is not None and any(self.slot_biases)

    def key_bias(self, layer: int) -> Tensor | None:
        """What is added to the logits of the keys in a layer: ``[S, M]`` or ``[S, N]``."""
        if not self.has_slot_biases:
            return self.bias
        assert self.bias is None, "a bias of the step beside biases of slots"
        assert self.pages is not None
        return self.pages.store.biases(layer)


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
    start, _, first = context.segments[sequence]
    keys = sequence_keys(context, sequence)
    if not context.sees_step:
        return keys[:first]
    return torch.cat((keys[:first], keys[first + visible_rows(context, row) - start]))


def sequence_keys(context: AttentionContext, sequence: int) -> Tensor:
    """Keys of a sequence up to its last row, in logical order: rows, or slots when there are
    pages."""
    start, stop, first = context.segments[sequence]
    if context.pages is not None:
        slots = context.pages.slots(sequence)
        last = first + stop - start if context.sees_step else first
        assert len(slots) >= last, (len(slots), first, start, stop)
        return slots[:last]
    device = context.positions_T.device
    prefix = torch.arange(0, device=device)
    if context.shared_prefix is not None and context.shared_prefix[sequence] >= 0:
        prefix_start, prefix_stop, prefix_first = context.segments[context.shared_prefix[sequence]]
        assert prefix_first == 0, f"the prefix of sequence {sequence} has a prefix itself"
        prefix = torch.arange(prefix_start, prefix_stop, device=device)
    assert first == len(prefix), f"sequence {sequence} starts at {first}, after {len(prefix)} keys"
    return torch.cat((prefix, torch.arange(start, stop, device=device)))


def select_sequences(
    context: AttentionContext, sequences: tuple[int, ...]
) -> tuple[Tensor, AttentionContext]:
    """Rows of some of the sequences, and the step as if there were no others. Without
    ``shared_prefix``, ``parent_T`` and what names keys; made once for all layers."""
    known = context.derived.get(("sequences", sequences))
    if known is not None:
        return known
    assert not context.extras() - {"sees_step", "slot_biases"}, context.extras()
    segments, rows = list[tuple[int, int, int]](), list[Tensor]()
    for sequence in sequences:
        start, stop, first = context.segments[sequence]
        begin = segments[-1][1] if segments else 0
        segments.append((begin, begin + stop - start, first))
        rows.append(torch.arange(start, stop, device=context.positions_T.device))
    row_T = torch.cat(rows)
    counts = torch.tensor([stop - start for start, stop, _ in segments], device=row_T.device)
    pages = context.pages
    if pages is not None:
        pages = replace(
            pages,
            table_BP=pages.table_BP[list(sequences)],
            lengths=tuple(pages.lengths[sequence] for sequence in sequences),
            write_T=pages.write_T[row_T],
        )
    routing, selection, biases = context.routing, context.selection, context.slot_biases
    part = replace(
        context,
        positions_T=context.positions_T[row_T],
        sequence_T=torch.arange(len(sequences), device=row_T.device).repeat_interleave(
            counts, output_size=len(row_T)
        ),
        segments=tuple(segments),
        pages=pages,
        routing=None if routing is None else tuple(routing[sequence] for sequence in sequences),
        selection=None if selection is None else tuple(selection[one] for one in sequences),
        slot_biases=None if biases is None else tuple(biases[sequence] for sequence in sequences),
        kept_queries=None,
        summed=None,
    )
    context.derived["sequences", sequences] = row_T, part
    return row_T, part


def reduce_max(stats: StatsRequest, max_TN: Tensor | None, lse_TN: Tensor) -> Tensor | None:
    """The requested statistic of QK-Clip from the rows' maxima and log-sum-exps; ``[N]``."""
    if stats.max_logit is None:
        return None
    if stats.max_logit == "bound":
        return lse_TN.amax(0)
    assert max_TN is not None
    return max_TN.amax(0)
