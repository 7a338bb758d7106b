"""The extra prediction layers as a draft head: tokens proposed greedily after a cached step.

When a sequence has been read up to position n - 1 and its token n is chosen, the layer of depth 1
proposes token n + 1 from row n - 1, that of depth 2 token n + 2 from the same row, and so on
(DeepSeek-V3, arXiv 2412.19437, sections 2.2 and 5.4.3). For more tokens than there are layers the
last one goes on: at the next row it takes its own hidden state for that of the depth before, as
serving engines do with the one layer of the published model.

The layers' entries are cached beside the model's. A row's entry at depth k belongs to the token k
places further on, so that the last rows, whose tokens were only drafted, are computed again when
the true ones are known:

    rows     0 … settled │ pending: hidden states kept │ drafted by the last layer
                         └ first                       └ n, overwritten by later rows

The plain oracle of a draft head: one sequence at a time, like ``model/decode.py`` for decoding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from selenite.errors import ConfigError
from selenite.model.decode import CachedModel


@dataclass
class _Sequence:
    """What is kept of a sequence: its tokens, and the model's hidden states of pending rows."""

    hidden_TD: Tensor
    first: int = 0  # the first pending row
    tokens: list[int] = field(default_factory=list)

    def cut(self, length: int) -> None:
        """Forgets what was fed from position ``length`` on, if anything."""
        assert self.first <= length, f"rows before {self.first} are settled, not {length}"
        self.tokens = self.tokens[:length]
        self.hidden_TD = self.hidden_TD[: length - self.first]

    def settle(self, first: int) -> None:
        """Keeps hidden states of row ``first`` and after."""
        self.hidden_TD = self.hidden_TD[max(0, first - self.first) :]
        self.first = max(self.first, first)


class Drafter:
    """Drafts for the sequences of a ``CachedModel``, which is fed through ``extend`` alone.

    Tokens are taken back, as after a rejected draft, by lowering ``cached.lengths`` before the
    next call.
    """

    def __init__(self, cached: CachedModel) -> None:
        config = cached.model.config
        if not config.num_nextn_predict_layers:
            raise ConfigError(
                "num_nextn_predict_layers=0: the model has no extra prediction layer to draft "
                "with; take one that was trained with model.num_nextn_predict_layers=1 or more"
            )
        self.cached = cached
        empty_TD = torch.empty(
            0, config.hidden_size, dtype=cached.model.compute_dtype, device=cached.device
        )
        self._sequences = [_Sequence(empty_TD) for _ in cached.lengths]

    def extend(self, tokens: dict[int, list[int]]) -> Tensor:
        """``CachedModel.extend``, whose hidden states are kept until the next tokens are known."""
        for sequence in tokens:
            self._sequences[sequence].cut(self.cached.lengths[sequence])
        hidden_TD = self.cached.extend(tokens)
        rows = hidden_TD.split([len(new) for new in tokens.values()])
        for (sequence, new), new_TD in zip(tokens.items(), rows, strict=True):
            own = self._sequences[sequence]
            own.tokens += new
            own.hidden_TD = torch.cat((own.hidden_TD, new_TD))
        return hidden_TD

    @torch.no_grad()
    def propose(self, sequence: int, token: int, count: int) -> list[int]:
        """Up to ``count`` drafts of what follows ``token``, which is to be fed next.

        They are fewer where the sequence would exceed the cache's ``max_len``.
        """
        model, own = self.cached.model, self._sequences[sequence]
        length, num_layers = self.cached.lengths[sequence], len(model.nextn)
        assert length > 0, f"sequence {sequence} is empty: extend it first"
        own.cut(length)
        text = [*own.tokens, token]
        count = max(0, min(count, self.cached.max_len - len(text)))

        hidden_TD, rows = own.hidden_TD, range(own.first, length)
        for depth in range(1, num_layers + 1):
            hidden_TD = self._run(depth, hidden_TD, sequence, rows, text)
            text.append(self._greedy(hidden_TD))
        for row in range(length, length + count - num_layers):
            last = range(row, row + 1)
            hidden_TD = self._run(num_layers, hidden_TD[-1:], sequence, last, text)
            text.append(self._greedy(hidden_TD))
        own.settle(length - num_layers)
        return text[length + 1 :][:count]

    def _run(
        self, depth: int, hidden_TD: Tensor, sequence: int, rows: range, text: list[int]
    ) -> Tensor:
        """Hidden states of the layer ``depth`` at ``rows``, whose entries are cached."""
        context = self.cached.context({sequence: rows})
        ahead = text[rows.start + depth : rows.stop + depth]
        next_T = torch.tensor(ahead, dtype=torch.int64, device=self.cached.device)
        return self.cached.model.predict_further(
            depth, hidden_TD, next_T, context.positions_T, context
        ).hidden_TD

    def _greedy(self, hidden_TD: Tensor) -> int:
        return int(self.cached.model.logits(hidden_TD[-1:])[0].float().argmax())
