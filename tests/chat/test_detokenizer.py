"""Ids to text one at a time equals all at once, also where the bytes are no UTF-8."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.chat.detokenizer import Detokenizer


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_pieces_add_up_to_the_text(tokenizer, data):
    specials = set(tokenizer.special_tokens.values())
    ordinary = [id for id in range(tokenizer.vocab_size) if id not in specials]
    high = [id for id in ordinary if "\ufffd" in tokenizer.decode([id])]
    texts = st.text(max_size=12).map(tokenizer.encode)
    broken = st.lists(st.sampled_from(high) | st.sampled_from(ordinary), max_size=40)
    ids = [id for part in data.draw(st.lists(texts | broken, max_size=4)) for id in part]
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(id) for id in ids]
    assert "".join(pieces) + detokenizer.flush() == tokenizer.decode(ids)
    assert detokenizer.flush() == ""


def test_text_is_given_as_soon_as_it_is_certain(tokenizer):
    ids = tokenizer.encode("a🙂b")
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(id) for id in ids if id != ids[-1]][-1] == "🙂"
    assert detokenizer.push(ids[-1]) == "b"
