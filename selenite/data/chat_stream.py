"""Conversations as pieces, as the model's template writes them.

Several conversations with the same tools can be one piece, in which what they begin with is there,
and computed, once:

    tools, system | one conversation | another | a third     each sees the beginning and itself
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from selenite.chat.profile import ChatProfile
from selenite.chat.supervision import Supervised, supervise
from selenite.chat.tokenizer import Tokenizer
from selenite.data.chat_rows import ChatRow
from selenite.data.pieces import Piece, branched, branched_places, num_shared
from selenite.errors import ConversationError, DataError, TokenizerError
from selenite.types import IGNORED, ToolSpec


class ChatStream:
    """Conversations in the order of each epoch, which is a new one where ``shuffle`` is true.

    ``unused_tools`` is how many tools that a row does not need it may have at most. Each time the
    row is read it gets from none to so many of its own, few more often than many, and all of its
    tools in a new order: otherwise their places would be learnt. A row that has tools is never
    without any. None: all, in the row's order.

    ``together`` rows of one group, drawn anew in each epoch, are one piece of at most
    ``piece_tokens``: they get one list of tools, as many as few, and what they begin with alike is
    there once. Where that finds no room, unused tools go, and then rows.
    """

    def __init__(
        self,
        rows: Sequence[ChatRow],
        tokenizer: Tokenizer,
        profile: ChatProfile,
        seq_len: int,
        seed: int = 0,
        unused_tools: int | None = None,
        shuffle: bool = True,
        together: int = 1,
        piece_tokens: int = 0,
    ) -> None:
        assert rows
        assert together == 1 or (unused_tools is not None and piece_tokens >= seq_len)
        self._rows = rows
        self._tokenizer, self._profile = tokenizer, profile
        self._token_bytes_V = tokenizer.token_bytes()
        self._seq_len, self._seed = seq_len, seed
        self._unused_tools, self._shuffle = unused_tools, shuffle
        self._together = together
        self._piece_tokens = piece_tokens if together > 1 else seq_len
        self._units = len(bundles(range(len(rows)), rows, together))
        self._order = lru_cache(maxsize=2)(self._make_order)

    def read(self, position: int) -> Piece | None:
        """Raises ``DataError``, with the row's file and line, where the template refuses it."""
        epoch, place = divmod(position, self._units)
        rows = [self._rows[number] for number in self._order(epoch)[place]]
        if self._unused_tools is None:
            return self._piece([self._supervised(row, row.tools) for row in rows])
        rng = random.Random(f"{self._seed}/tools/{position}")
        needed, unused = draw_tools(rows, self._unused_tools, rng)
        while True:
            tools = [*needed, *unused]
            rng.shuffle(tools)
            known = [self._supervised(row, tools) for row in rows]
            over = self._excess(known)
            if over <= 0 or len(rows) == 1 or not (needed and unused):
                return self._piece(known)
            # As many as the excess is worth, where all tools are of one length.
            fewer = -(-over * len(tools) // max(1, _shared(known)))
            unused = unused[: max(0, len(unused) - fewer)]

    def _excess(self, known: Sequence[Supervised]) -> int:
        """Ids by which the longest conversation, or all together, find no room."""
        lengths = [len(found.ids) for found in known]
        together = sum(lengths) - (len(known) - 1) * _shared(known)
        return max(max(lengths) - self._seq_len, together - self._piece_tokens)

    def _piece(self, rows: Sequence[Supervised]) -> Piece | None:
        """Several share what they begin with alike, none of which is learnt."""
        known = [found for found in rows if len(found.ids) <= self._seq_len]
        if not known:
            return None
        shared = 0 if len(known) == 1 else _shared(known)
        room, kept = self._piece_tokens - shared, list[Supervised]()
        for found in known:
            own = len(found.ids) - shared
            if own <= room:
                kept.append(found)
                room -= own
        tokens = [np.array(found.ids, dtype=np.int64) for found in kept]
        targets_T = branched([_targets(found.ids, found.is_trained) for found in kept], shared)
        positions_T, document_T = branched_places([len(own) for own in tokens], shared)
        return Piece(
            branched(tokens, shared),
            targets_T,
            positions_T,
            document_T,
            int(self._token_bytes_V[targets_T[targets_T != IGNORED]].sum()),
            left_out=len(rows) - len(kept),
        )

    def _supervised(self, row: ChatRow, tools: Sequence[ToolSpec]) -> Supervised:
        try:
            return supervise(self._tokenizer, row.messages, tools, row.untrained, self._profile)
        except (TokenizerError, ConversationError) as error:
            raise DataError(f"{row.place}: {error}") from error

    def _make_order(self, epoch: int) -> list[tuple[int, ...]]:
        numbers = np.arange(len(self._rows))
        if not self._shuffle:
            return bundles(numbers.tolist(), self._rows, self._together)
        bits = np.random.Philox(key=self._seed, counter=[0, 0, 0, epoch])
        generator = np.random.Generator(bits)
        units = bundles(generator.permutation(numbers).tolist(), self._rows, self._together)
        if self._together == 1:
            return units
        return [units[i] for i in generator.permutation(len(units))]


def bundles(order: Iterable[int], rows: Sequence[ChatRow], together: int) -> list[tuple[int, ...]]:
    """The rows in an order, ``together`` of a group at a time; those without a group alone."""
    waiting = dict[str, list[int]]()
    found = list[tuple[int, ...]]()
    for number in order:
        group = rows[number].group
        if not group or together == 1:
            found.append((number,))
            continue
        own = waiting.setdefault(group, [])
        own.append(number)
        if len(own) == together:
            found.append(tuple(waiting.pop(group)))
    return found + [tuple(numbers) for numbers in waiting.values()]


def draw_tools(
    rows: Sequence[ChatRow], most: int, rng: random.Random
) -> tuple[list[ToolSpec], list[ToolSpec]]:
    """The tools that rows which are read together need, and at most so many others of theirs."""
    known = {tool.name: tool for row in rows for tool in row.tools}
    names = frozenset[str]().union(*(row.needed for row in rows))
    needed = [tool for name, tool in known.items() if name in names]
    others = [tool for name, tool in known.items() if name not in names]
    # One row: the cube of a uniform number, so that half of them get an eighth of the most, or
    # fewer. Several pay for the tools once.
    share = rng.random() ** (3 if len(rows) == 1 else 1)
    unused = rng.sample(others, int(share * (min(most, len(others)) + 1)))
    if not (needed or unused) and others:
        unused = [rng.choice(others)]
    return needed, unused


def _shared(known: Sequence[Supervised]) -> int:
    firsts = [found.is_trained.index(True) for found in known]
    return num_shared([found.ids for found in known], firsts)


def _targets(ids: Sequence[int], is_trained: Sequence[bool]) -> np.ndarray:
    """The next id where it is learnt, else ``IGNORED``."""
    learnt = np.array([*is_trained[1:], False])
    return np.where(learnt, np.append(np.array(ids[1:], dtype=np.int64), IGNORED), IGNORED)
