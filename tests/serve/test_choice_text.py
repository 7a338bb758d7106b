"""Tokens to events, with stop strings that lie across tokens."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selenite.chat.events import collect
from selenite.chat.profile import K2, K2_THINKING
from selenite.chat.reply_parser import ReplyParser
from selenite.chat.tokenizer import Tokenizer
from selenite.serve.choice_text import ChoiceText, PlainText

TEXT = "The quick brown fox: größe, 你好世界 🙂🙃 jumps over the lazy dog."
CALL = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
    '{"stop": "stop"}<|tool_call_end|><|tool_calls_section_end|><|im_end|>'
)


def test_without_a_wish_nobody_asks_the_engines_thread(tokenizer: Tokenizer) -> None:
    assert ChoiceText(PlainText(tokenizer)).hook is None
    assert ChoiceText(PlainText(tokenizer), ["x"]).hook is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.integers(1, 12))
def test_the_text_ends_where_the_stop_string_begins(
    tokenizer: Tokenizer, start: int, length: int
) -> None:
    stop = TEXT[start : start + length]
    text = ChoiceText(PlainText(tokenizer), [stop])
    ended = any(text.push(token) for token in tokenizer.encode(TEXT))
    text.finish()
    assert ended
    assert text.stop_string == stop
    assert collect(text.events()).content == TEXT[: TEXT.index(stop)]


def test_no_stop_string_counts_before_min_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a stop and a stop and more")
    text = ChoiceText(
        PlainText(tokenizer), ["stop"], min_tokens=tokenizer.encode("a stop").__len__()
    )
    for token in ids:
        if text.push(token):
            break
    text.finish()
    assert collect(text.events()).content == "a stop and a "


def test_calls_hold_no_stop_strings(tokenizer: Tokenizer) -> None:
    text = ChoiceText(ReplyParser(K2, tokenizer), ["stop"])
    ids = tokenizer.encode("I st" + CALL, allow_special=True)
    assert not any(text.push(token) for token in ids)
    text.finish()
    reply = collect(text.events())
    assert reply.content == "I st"  # held back, and given out when the call began
    assert reply.calls[0].arguments == '{"stop": "stop"}'


def test_white_space_that_the_parser_holds_back_can_stop(tokenizer: Tokenizer) -> None:
    text = ChoiceText(ReplyParser(K2_THINKING, tokenizer), ["\n\n"])
    ids = [*tokenizer.encode("One."), *tokenizer.encode("\n"), *tokenizer.encode("\n")]
    assert [text.push(token) for token in ids] == [False] * (len(ids) - 1) + [True]
    text.finish()
    assert collect(text.events()).content == "One."
    assert text.stop_string == "\n\n"


def test_hidden_tokens_are_no_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The quick fox")
    text = ChoiceText(PlainText(tokenizer), hidden=frozenset(ids[-1:]))
    for token in ids:
        text.push(token)
    text.finish()
    assert collect(text.events()).content == tokenizer.decode(ids[:-1])
