"""Profiles: which one a model gets, and that rendering, grammar and parser speak of one format."""

from __future__ import annotations

import re

import pytest

from selenite.chat.profile import (
    HERMES,
    HERMES_THINKING,
    K2,
    K2_THINKING,
    PLAIN,
    PROFILES,
    SMOLLM2,
    detect_profile,
)
from selenite.chat.reply_parser import parse_reply
from selenite.chat.template import k2_template, render
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError
from selenite.types import Message, ToolCall
from tests.fixtures.replies import NASTY
from tests.fixtures.smollm2 import smollm2

CALLS = (
    ToolCall("get.the-weather", NASTY, "functions.get.the-weather:0"),
    ToolCall("f", "{}", "functions.f:1"),
)


def test_detection(tokenizer, tmp_path):
    assert detect_profile(tokenizer)[0] is K2
    thinking = Tokenizer(tokenizer._backend, tokenizer.roles, k2_template() + "{# <think> #}")
    assert detect_profile(thinking)[0] is K2_THINKING
    smol = Tokenizer.load(smollm2())
    assert detect_profile(smol) == (SMOLLM2, "the template is SmolLM2's, which has no tools")
    for template, profile in (
        ("<tool_call>", HERMES),
        ("<think><tool_call>", HERMES_THINKING),
        (None, PLAIN),
    ):
        other = Tokenizer(smol._backend, smol.roles, template)
        assert detect_profile(other)[0] is profile


@pytest.mark.parametrize(
    ("profile", "template"),
    [(K2, k2_template()), (SMOLLM2, SMOLLM2.template(None))],  # type: ignore[arg-type]
    ids=["k2", "smollm2"],
)
@pytest.mark.parametrize("content", ["", "Look.", "a <b> 你"])
def test_what_the_template_writes_the_parser_reads(profile, template, content):
    question = Message("user", "?")
    answer = Message("assistant", content, tool_calls=CALLS)
    before = render(template, [question], add_generation_prompt=True)
    text = render(template, [question, answer]).removeprefix(before).rstrip("\n")
    reply = parse_reply(profile, text.removesuffix("<|im_end|>"))
    assert reply.message() == answer


@pytest.mark.parametrize("profile", [K2, HERMES], ids=lambda profile: profile.name)
def test_what_the_grammar_forces_the_parser_reads(profile):
    text = "".join(profile.calls.section[:1]) if profile.calls.section else ""
    for index, call in enumerate(CALLS):
        tag = profile.calls.tag(call.name)
        assert tag.begin.startswith(profile.calls.trigger)
        number = str(index) if tag.index_pattern else ""
        assert re.fullmatch(tag.index_pattern, number)
        text += tag.begin + number + tag.arguments_begin + call.arguments + tag.end
    text += "".join(profile.calls.section[1:]) if profile.calls.section else ""
    reply = parse_reply(profile, text)
    assert (reply.calls, reply.content, reply.malformed) == (CALLS, "", ())


def test_stop_ids(tokenizer):
    names = ("<|im_end|>", "[EOS]", "[EOT]")
    assert K2.stop_ids(tokenizer) == tuple(tokenizer.special_id(name) for name in names)
    assert PLAIN.stop_ids(tokenizer) == (tokenizer.eos_id,)


def test_a_profile_without_template_says_so(tokenizer):
    bare = Tokenizer(tokenizer._backend, tokenizer.roles, None)
    with pytest.raises(TokenizerError, match="no chat template"):
        PROFILES["k2"].template(bare)
