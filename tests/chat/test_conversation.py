"""Conversations only grow: earlier ids are a prefix of later ones, sampled ids stay verbatim."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.chat.conversation import Conversation
from selenite.chat.profile import HERMES, HERMES_THINKING, K2, PLAIN, SMOLLM2, ChatProfile
from selenite.chat.template import encode_conversation, render
from selenite.chat.template_check import check_template
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConversationError, UnstableTemplateError
from selenite.types import Message, ToolCall, ToolSpec
from tests.fixtures.replies import hermes, k2_call, k2_section, tagged
from tests.fixtures.smollm2 import smollm2

TOOL = ToolSpec("get_weather", "Weather of a place", {"type": "object", "properties": {}})
THINKS = r"""
{%- for m in messages -%}
<|im_user|>{{ m.role }}<|im_middle|>
{%- if m.role == 'assistant' and (loop.last or keep) and m.reasoning_content -%}
{{- '<think>\n' ~ m.reasoning_content ~ '\n</think>\n\n' -}}
{%- endif -%}
{{ m.content }}<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_user|>assistant<|im_middle|>{%- endif -%}
"""


@pytest.fixture(scope="session")
def smol() -> Tokenizer:
    return Tokenizer.load(smollm2())


@pytest.fixture(scope="session", params=["k2", "smollm2", "smollm2 without tools"])
def model(request, tokenizer) -> tuple[Tokenizer, ChatProfile]:
    if request.param == "k2":
        return tokenizer, K2
    profile = SMOLLM2 if request.param == "smollm2" else PLAIN
    return request.getfixturevalue("smol"), profile


def with_template(tokenizer: Tokenizer, template: str) -> Tokenizer:
    return Tokenizer(tokenizer._backend, tokenizer.roles, template)


texts = st.text(
    st.sampled_from("aB 1\n\té你🙂")
    | st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs"]),
    max_size=8,
) | st.sampled_from(["<|im_end|>", "<|im_start|>user\n", "<tool_call>", "hidden0x1x", " a ", ""])


@st.composite
def turns(draw) -> list[list[Message]]:
    """Groups of messages: user turns, assistant turns with and without calls, results."""
    groups: list[list[Message]] = []
    if draw(st.booleans()):
        groups.append([Message("system", draw(texts)), Message("user", draw(texts))])
    for _ in range(draw(st.integers(1, 3))):
        groups.append([Message("user", draw(texts))])
        ids = draw(st.lists(st.sampled_from(["", "call_1", "functions.get_weather:0"]), max_size=2))
        calls = tuple(ToolCall("get_weather", '{"a": "<|im_end|>"}', id) for id in ids)
        groups.append([Message("assistant", draw(texts), tool_calls=calls)])
        if ids:
            groups.append([Message("tool", draw(texts), tool_call_id=id) for id in ids])
    return groups


@given(groups=turns())
@settings(max_examples=60, deadline=None)
def test_growing_turn_by_turn_gives_the_ids_of_encoding_at_once(model, groups):
    tokenizer, profile = model
    conversation = Conversation.start(tokenizer, [TOOL] if profile.calls else [], profile)
    for group in groups:
        longer = conversation.extended(group)
        assert longer.ids[: len(conversation.ids)] == conversation.ids
        assert longer.prompt_ids()[: len(longer.ids)] == list(longer.ids)
        conversation = longer
    template = with_template(tokenizer, profile.template(tokenizer))
    at_once = encode_conversation(template, conversation.messages, conversation.tools)
    assert list(conversation.ids) == at_once
    assert conversation.inexact_seams == ()
    all_at_once = Conversation.start(tokenizer, conversation.tools, profile)
    assert all_at_once.extended([m for group in groups for m in group]) == conversation


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_sampled_ids_stay_as_they_were_sampled(model, data):
    tokenizer, profile = model
    conversation = Conversation.start(tokenizer, [TOOL] if profile.calls else [], profile)
    specials = set(tokenizer.special_tokens.values())
    anything = st.integers(0, tokenizer.vocab_size - 1).filter(lambda id: id not in specials)
    end = tokenizer.special_id("<|im_end|>")
    for _ in range(3):
        conversation = conversation.extended([Message("user", data.draw(texts))])
        sampled = data.draw(st.lists(anything, max_size=10)) + data.draw(
            st.sampled_from([[end], []])  # [] as if cut short
        )
        prompt = conversation.prompt_ids()
        longer = conversation.with_reply(sampled)
        assert list(longer.ids[: len(prompt) + len(sampled)]) == prompt + sampled
        assert longer.sampled[-1] == (len(prompt), len(prompt) + len(sampled))
        assert longer.ids[: len(conversation.ids)] == conversation.ids
        closing = tokenizer.decode(longer.ids[len(prompt) :])
        assert closing.rstrip("\n").endswith("<|im_end|>")
        conversation = longer


def test_a_reply_with_calls_is_closed_as_the_template_closes_it(tokenizer, smol):
    arguments = '{"city": "Rome"}'
    for vocabulary, profile, text in (
        (tokenizer, K2, "Ok." + k2_section(k2_call("functions.get_weather:0", arguments))),
        (smol, SMOLLM2, "Ok.\n" + tagged(hermes("get_weather", arguments))),
    ):
        asked = Conversation.start(vocabulary, [TOOL], profile).extended([Message("user", "Rome?")])
        sampled = vocabulary.encode(text + "<|im_end|>", allow_special=True)
        replied = asked.with_reply(sampled)
        assert replied.messages[-1] == Message(
            "assistant",
            "Ok.",
            tool_calls=(ToolCall(TOOL.name, arguments, "functions.get_weather:0"),),
        )
        assert asked.extended([replied.messages[-1]]).ids == replied.ids
        answered = [Message("tool", "sun", tool_call_id="functions.get_weather:0")]
        longer = replied.extended(answered)
        assert longer.ids == asked.extended([replied.messages[-1], *answered]).ids
        # A client sends everything again each time, and may forget the reasoning.
        assert asked.resumed(longer.messages) == asked.extended(longer.messages[1:])
        assert replied.resumed(longer.messages) == longer
        assert longer.resumed(longer.messages) == longer
        assert longer.resumed(longer.messages[:-1]) is None
        assert longer.resumed([Message("user", "Oslo?"), *longer.messages[1:]]) is None


def test_branches_do_not_share_ids_of_calls(tokenizer):
    asked = Conversation.start(tokenizer, [TOOL]).extended([Message("user", "Rome?")])
    sampled = tokenizer.encode(k2_section(k2_call("functions.f:0", "{}")), allow_special=True)
    first, second = asked.with_reply(sampled), asked.with_reply(sampled)
    assert first == second
    assert first.messages[-1].tool_calls[0].id == "functions.f:0"
    again = first.with_reply(sampled)
    assert again.messages[-1].tool_calls[0].id == "functions.f:1"


def test_bad_ids_of_a_history_are_rewritten_before_rendering(tokenizer):
    turns = [
        Message("user", "Rome?"),
        Message("assistant", tool_calls=(ToolCall("get_weather", "{}", "call_59ad"),)),
        Message("tool", "sun", tool_call_id="call_59ad"),
    ]
    conversation = Conversation.start(tokenizer, [TOOL]).extended(turns)
    text = tokenizer.decode(conversation.ids)
    assert "call_59ad" not in text
    assert text.count("functions.get_weather:0") == 2
    assert conversation.resumed([*turns, Message("user", "?")]) == conversation.extended(
        [Message("user", "?")]
    )


def test_smollm2_with_its_tools_template_writes_what_its_own_writes(smol):
    own = smol.chat_template
    for messages in (
        [Message("user", "hi"), Message("assistant", "ho\n"), Message("user", "")],
        [Message("system", "Be brief."), Message("user", "hi")],
    ):
        for prompt in (False, True):
            assert render(SMOLLM2.template(smol), messages, add_generation_prompt=prompt) == render(
                own, messages, add_generation_prompt=prompt
            )


# --- templates that cannot be appended to


def test_a_template_that_forgets_reasoning_is_found_out(tokenizer):
    forgetful = with_template(tokenizer, THINKS)
    profile = dataclasses.replace(HERMES_THINKING, stop=("<|im_end|>",))
    conversation = Conversation.start(forgetful, (), profile).extended([Message("user", "a")])
    replied = conversation.with_reply(forgetful.encode("<think>\nHm.\n</think>\n\nb"))
    assert replied.messages[-1].reasoning == "Hm."
    with pytest.raises(
        UnstableTemplateError, match=r"changes the first 2 turns.*it wrote '<think>"
    ):
        replied.extended([Message("user", "c")])
    (finding,) = check_template(forgetful, dataclasses.replace(profile, calls=None))
    assert finding.startswith("adding a turn of 'user': the chat template changes the first 4")
    keeps = with_template(tokenizer, "{%- set keep = true -%}" + THINKS.replace("keep)", "true)"))
    assert check_template(keeps, dataclasses.replace(profile, calls=None)) == ()


def test_results_that_a_template_joins_are_added_at_once_or_refused(tokenizer):
    joins = with_template(
        tokenizer,
        "{%- for m in messages -%}<|im_user|>{{ m.content }}"
        "{%- if loop.last or m.role != 'tool' or messages[loop.index].role != 'tool' -%}"
        "<|im_end|>{%- endif -%}{%- endfor -%}",
    )
    calls = tuple(ToolCall("f", "{}", id) for id in ("functions.f:0", "functions.f:1"))
    results = [Message("tool", "x", tool_call_id=call.id) for call in calls]
    asked = Conversation.start(joins, [TOOL], HERMES).extended(
        [Message("user", "a"), Message("assistant", tool_calls=calls)]
    )
    assert asked.extended(results).ids[: len(asked.ids)] == asked.ids
    with pytest.raises(UnstableTemplateError, match="results of tools, say"):
        asked.extended(results[:1]).extended(results[1:])


def test_seams_that_a_tokenizer_would_merge_are_recorded(tokenizer):
    bare = with_template(tokenizer, "{% for m in messages %}{{ m.content }}{% endfor %}")
    (pair,) = [t for t in ("self",) if len(tokenizer.encode(t)) == 1]
    conversation = Conversation.start(bare, (), PLAIN).extended([Message("user", pair[:2])])
    assert conversation.inexact_seams == ()
    longer = conversation.extended([Message("user", pair[2:])])
    assert longer.inexact_seams == (len(conversation.ids),)
    assert longer.ids[: len(conversation.ids)] == conversation.ids
    with pytest.raises(ConversationError, match="writes no end token after an assistant's turn"):
        longer.with_reply(tokenizer.encode("b"))


def test_a_generation_prompt_unlike_the_history_is_found_out(tokenizer):
    prompt = "assistant<|im_middle|>"
    opens = with_template(tokenizer, THINKS.replace(prompt, prompt + r"{{ '<think>\n' }}"))
    profile = dataclasses.replace(HERMES_THINKING, calls=None, stop=("<|im_end|>",))
    findings = check_template(opens, profile)
    assert "the generation prompt is not how" in findings[0]
    conversation = Conversation.start(opens, (), profile).extended([Message("user", "a")])
    assert conversation.parser().in_reasoning
    replied = conversation.with_reply(opens.encode("Hm.</think>b"))
    assert (replied.messages[-1].reasoning, replied.messages[-1].content) == ("Hm.", "b")


def test_templates_here_are_sound(tokenizer, smol):
    assert check_template(tokenizer, K2) == ()
    assert check_template(smol, SMOLLM2) == ()
    assert check_template(smol, PLAIN) == ()
    refuses = with_template(tokenizer, "{{ raise_exception('no') }}")
    assert check_template(refuses, K2) == (
        "a turn of 'user' is refused: the chat template cannot render this conversation (no); "
        "mend the conversation, or the template in the tokenizer's folder",
    )
