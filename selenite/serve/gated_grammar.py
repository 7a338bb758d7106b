"""A grammar around a grammar: none while the model thinks.

Letters: ``V`` vocabulary.
"""

from __future__ import annotations

import numpy as np

from selenite.chat.detokenizer import Detokenizer
from selenite.chat.profile import Reasoning
from selenite.chat.tokenizer import Tokenizer
from selenite.serve.engine.request import Grammar


class AfterReasoning:
    """Free text until the reasoning section ends, then a grammar.

    Args:
        grammar: of what follows.
        reasoning: how the section begins and ends.
        tokenizer: of the model.
        vocab_size: logits of the model.
        is_open: the prompt has begun the section. Otherwise the model may, if a special token does
            it.
    """

    def __init__(
        self,
        grammar: Grammar,
        reasoning: Reasoning,
        tokenizer: Tokenizer,
        vocab_size: int,
        is_open: bool,
    ) -> None:
        special = tokenizer.special_tokens
        self._grammar = grammar
        self._begin = None if is_open else special.get(reasoning.begin)
        self._end_id = special.get(reasoning.end)
        self._end_text = reasoning.end
        self._detokenizer = Detokenizer(tokenizer)
        self._tail = ""
        self._is_open = is_open
        # Neither calls nor the end of the reply, before the section has ended.
        self._thinking_V = np.ones(vocab_size, dtype=bool)
        self._thinking_V[list(set(special.values()) - {self._end_id})] = False

    def allowed_V(self) -> np.ndarray | None:
        """bool ``[V]``: tokens that may come next; None: all of them."""
        if self._is_open:
            return self._thinking_V
        allowed_V = self._grammar.allowed_V()
        if allowed_V is not None and self._begin is not None:
            allowed_V = allowed_V.copy()
            allowed_V[self._begin] = True
        return allowed_V

    def accept(self, token: int) -> None:
        """Moves on by a sampled token, which was allowed."""
        begin, self._begin = self._begin, None  # a section begins at the start or never
        if self._is_open:
            self._is_open = not self._ends(token)
        elif token == begin:
            self._is_open = True
        else:
            self._grammar.accept(token)

    def _ends(self, token: int) -> bool:
        if self._end_id is not None:
            return token == self._end_id
        self._tail = (self._tail + self._detokenizer.push(token))[-4 * len(self._end_text) :]
        return self._end_text in self._tail
