"""A grammar that waits until the model has thought."""

from __future__ import annotations

import numpy as np
import pytest

from selenite.chat.profile import Reasoning
from selenite.chat.tokenizer import Tokenizer
from selenite.serve.gated_grammar import AfterReasoning


class Only:
    """Allows one token, once."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.seen: list[int] = []

    def allowed_V(self) -> np.ndarray:
        return np.arange(600) == self.token

    def accept(self, token: int) -> None:
        self.seen.append(token)


@pytest.mark.parametrize("end", ["</think>", "<|im_middle|>"], ids=["text", "special token"])
def test_thinking_is_free_and_what_follows_is_not(tokenizer: Tokenizer, end: str) -> None:
    inner = Only(7)
    grammar = AfterReasoning(inner, Reasoning(end=end), tokenizer, 600, is_open=True)
    special = set(tokenizer.special_tokens.values())
    for token in tokenizer.encode("So, the fox." + end, allow_special=True):
        allowed_V = grammar.allowed_V()
        assert allowed_V is not None
        assert allowed_V[token]
        assert {int(id) for id in np.flatnonzero(~allowed_V)} == special - {
            token,
            *([tokenizer.special_tokens[end]] if end in tokenizer.special_tokens else []),
        }
        grammar.accept(token)
    assert np.flatnonzero(grammar.allowed_V()).tolist() == [7]
    grammar.accept(7)
    assert inner.seen == [7]


def test_a_model_may_begin_to_think_by_itself(tokenizer: Tokenizer) -> None:
    names = Reasoning(begin="<|im_user|>", end="<|im_middle|>")
    begin = tokenizer.special_id(names.begin)
    grammar = AfterReasoning(Only(7), names, tokenizer, 600, is_open=False)
    assert sorted(np.flatnonzero(grammar.allowed_V())) == sorted([7, begin])
    grammar.accept(begin)
    grammar.accept(tokenizer.encode("x")[0])
    grammar.accept(tokenizer.special_id(names.end))
    assert np.flatnonzero(grammar.allowed_V()).tolist() == [7]
    grammar = AfterReasoning(Only(7), names, tokenizer, 600, is_open=False)
    grammar.accept(7)  # it did not
    assert np.flatnonzero(grammar.allowed_V()).tolist() == [7]
