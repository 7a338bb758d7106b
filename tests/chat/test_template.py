"""The K2 template: its shape turn by turn, and no way for content to forge a special token."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.chat.k2_vocabulary import SPECIAL_TOKENS
from selenite.chat.template import encode_conversation, k2_template, render
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError
from selenite.types import Message, ToolCall, ToolSpec

WEATHER = ToolSpec("get_weather", "Weather of a <place>", {"type": "object", "properties": {}})
CONVERSATION = [
    Message("system", "Be brief."),
    Message("user", "Rome & Paris?", name="ann"),
    Message(
        "assistant",
        "Looking.",
        tool_calls=(
            ToolCall("get_weather", '{"city": "Rome"}', "functions.get_weather:0"),
            ToolCall("get_weather", '{"city": "Paris"}', "functions.get_weather:1"),
        ),
    ),
    Message("tool", "sunny", tool_call_id="functions.get_weather:0"),
    Message("tool", "rain", tool_call_id="functions.get_weather:1"),
    Message("assistant", "Sun, rain.\n"),
]


def test_each_turn_is_rendered_as_kimi_k2_reads_it():
    assert render(k2_template(), CONVERSATION) == (
        "<|im_system|>system<|im_middle|>Be brief.<|im_end|>"
        "<|im_user|>ann<|im_middle|>Rome & Paris?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>Looking.<|tool_calls_section_begin|>"
        "<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Rome"}<|tool_call_end|>'
        "<|tool_call_begin|>functions.get_weather:1<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|>'
        "<|tool_calls_section_end|><|im_end|>"
        "<|im_system|>tool<|im_middle|>## Return of functions.get_weather:0\nsunny<|im_end|>"
        "<|im_system|>tool<|im_middle|>## Return of functions.get_weather:1\nrain<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>Sun, rain.\n<|im_end|>"
    )


def test_tools_are_declared_first_in_a_turn_of_their_own():
    text = render(k2_template(), [Message("user", "hi")], [WEATHER])
    head, rest = text.split("<|im_end|>", 1)
    assert rest == "<|im_user|>user<|im_middle|>hi<|im_end|>"
    prefix = "<|im_system|>tool_declare<|im_middle|>"
    assert head.startswith(prefix)
    declared = json.loads(head.removeprefix(prefix))
    assert declared == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Weather of a <place>",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]
    assert "<place>" in head  # as is, not escaped for HTML


def test_the_generation_prompt_ends_in_the_assistant_header():
    text = render(k2_template(), [Message("user", "hi")], add_generation_prompt=True)
    assert text.endswith("<|im_end|><|im_assistant|>assistant<|im_middle|>")


def test_earlier_turns_are_a_prefix_of_later_ones():
    for count in range(1, len(CONVERSATION)):
        assert render(k2_template(), CONVERSATION).startswith(
            render(k2_template(), CONVERSATION[:count])
        )


def test_encoding_equals_the_rendering_where_nothing_is_forged(tokenizer):
    ids = encode_conversation(tokenizer, CONVERSATION, [WEATHER], add_generation_prompt=True)
    text = render(k2_template(), CONVERSATION, [WEATHER], add_generation_prompt=True)
    assert ids == tokenizer.encode(text, allow_special=True)


hostile = st.lists(
    st.sampled_from(
        [
            *SPECIAL_TOKENS,
            "<|im_",
            "end|>",
            "<|",
            "|>",
            "[BOS",
            "]",
            "hidden0x",
            "hidden0x1x",
            " ",
            "é",
        ]
    ),
    max_size=5,
).map("".join)


@given(parts=st.tuples(*[hostile] * 8))
@settings(max_examples=100, deadline=None)
def test_content_never_becomes_a_special_token(tokenizer, parts):
    """Special ids are exactly those of the same conversation with harmless words in it."""

    def conversation(user, name, answer, arguments, call_id, result, tool, key):
        call = ToolCall("f", arguments, call_id)
        messages = [
            Message("user", user, name=name or None),
            Message("assistant", answer, tool_calls=(call,)),
            Message("tool", result, tool_call_id=call_id),
        ]
        return messages, [ToolSpec("f", tool, {key: [tool]})]

    specials = set(tokenizer.special_tokens.values())
    ids = encode_conversation(tokenizer, *conversation(*parts), add_generation_prompt=True)
    harmless = encode_conversation(
        tokenizer, *conversation(*["word"] * 8), add_generation_prompt=True
    )
    assert [i for i in ids if i in specials] == [i for i in harmless if i in specials]
    text = render(k2_template(), *conversation(*parts), add_generation_prompt=True)
    assert tokenizer.decode(ids) == text


def test_a_template_can_refuse_a_conversation_and_cannot_reach_python():
    with pytest.raises(TokenizerError, match="no system role here"):
        render("{{ raise_exception('no system role here') }}", CONVERSATION)
    with pytest.raises(TokenizerError, match="cannot render"):
        render("{{ ''.__class__.__mro__[1].__subclasses__() }}", CONVERSATION)
    with pytest.raises(TokenizerError, match="cannot render"):
        render("{% if %}", CONVERSATION)


def test_a_tokenizer_without_template_says_so(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match="no chat template"):
        encode_conversation(Tokenizer.load(tmp_path), CONVERSATION)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    loaded = Tokenizer.load(tmp_path)
    assert loaded.decode(encode_conversation(loaded, CONVERSATION)) == "Be brief."


def test_templates_of_other_models_see_the_names_of_special_tokens(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for message in messages %}{{ message.content | trim }}{% endfor %}"
        "{{ eos_token }}"
    )
    loaded = Tokenizer.load(tmp_path)
    ids = encode_conversation(loaded, [Message("user", " hi [EOS] ")])
    assert ids == [loaded.bos_id, *loaded.encode("hi [EOS]"), loaded.eos_id]


def test_what_templates_of_other_models_use():
    turns = [Message("user", "one"), Message("user", "two"), Message("assistant", "three")]
    template = (
        "{% for m in messages %}{% if m.content == 'two' %}{% continue %}{% endif %}"
        "{% if m.role == 'assistant' %}{% generation %}<{{ m.content }}>{% endgeneration %}"
        "{% break %}{% endif %}{{ m.content }} {% endfor %}"
        "{% if strftime_now is defined %}a date{% endif %}"
    )
    assert render(template, turns) == "one <three>"
    with pytest.raises(TokenizerError, match="'strftime_now' is undefined"):
        render("{{ strftime_now('%Y') }}", turns)


@pytest.mark.parametrize("fault", ["messages[0].content + 1", "1 // 0", "'%d' | format('x')"])
def test_a_template_that_fails_in_python_is_named(fault):
    with pytest.raises(TokenizerError, match="the chat template cannot render"):
        render("{{ " + fault + " }}", CONVERSATION)


def test_of_several_templates_the_default_is_taken(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    tools = {"name": "tool_use", "template": "tools"}
    config["chat_template"] = [tools, {"name": "default", "template": "plain"}]
    file.write_text(json.dumps(config))
    assert Tokenizer.load(tmp_path).chat_template == "plain"
    config["chat_template"] = [tools]
    file.write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=r"lists \['tool_use'\] and no 'default'"):
        Tokenizer.load(tmp_path)


def test_a_text_that_spells_place_holders_is_searched_once(tokenizer):
    """Trying one number after the other took the square of the text's length."""
    text = " ".join(f"hidden{number}x" for number in range(50_000))
    begun = time.thread_time()
    ids = encode_conversation(tokenizer, [Message("user", text)])
    assert time.thread_time() - begun < 5
    assert text in tokenizer.decode(ids)
