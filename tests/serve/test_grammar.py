"""Random writers under a grammar: whatever they write is valid, and what is valid is accepted.

A writer takes any allowed token at random, as a model with a flat distribution does.
"""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import jsonschema
import numpy as np
import pytest
import xgrammar

from selenite.chat.events import Outcome, Reply
from selenite.chat.profile import HERMES, K2, PLAIN, ChatProfile
from selenite.chat.reply_parser import parse_reply
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import ManualClock
from selenite.errors import ConfigError
from selenite.serve.engine.request import Grammar
from selenite.serve.grammar import GrammarFactory, Surrogates, TokenGrammar
from selenite.types import ToolSpec

WEATHER = ToolSpec(
    "get_weather",
    "",
    {
        "type": "object",
        "properties": {
            "city": {"enum": ["Paris", "東京", 'a "quoted" one']},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"$ref": "#/$defs/unit"},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
        "$defs": {"unit": {"enum": ["C", "F"]}},
    },
)
CLOCK = ToolSpec(
    "clock.now", "", {"type": "object", "properties": {}, "additionalProperties": False}
)
TOOLS = (WEATHER, CLOCK)
SCHEMAS = {tool.name: tool.parameters for tool in TOOLS}
EXTRA_LOGITS = 7  # a model may have more logits than its tokenizer has tokens


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ['{"city": "Paris", "days": 3}', "def f(x):\n    return x", "<tool_call>\n"] * 20
    return Tokenizer.train(texts, 400)


@cache  # each has a process of its own
def factory(tokenizer: Tokenizer, profile: ChatProfile = K2) -> GrammarFactory:
    return GrammarFactory(tokenizer, tokenizer.vocab_size + EXTRA_LOGITS, profile)


def write(
    grammar: Grammar, stop: tuple[int, ...], seed: int, prefer: frozenset[int], most: int = 400
) -> list[int] | None:
    """Allowed tokens at random, ``prefer`` first where allowed, up to a stop token; None: none
    came."""
    rng = random.Random(seed)
    written: list[int] = []
    while len(written) < most:
        allowed_V = grammar.allowed_V()
        assert allowed_V is not None
        allowed = np.nonzero(allowed_V)[0].tolist()
        assert allowed, "the grammar is stuck"
        preferred = [token for token in allowed if token in prefer]
        token = rng.choice(preferred if preferred and rng.random() < 0.5 else allowed)
        if token in stop:
            return written
        grammar.accept(token)
        written.append(token)
    return None


def check_calls(reply: Reply) -> None:
    assert reply.outcome is not Outcome.MALFORMED, reply
    for call in reply.calls:
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


def stop_and_markers(
    tokenizer: Tokenizer, profile: ChatProfile
) -> tuple[tuple[int, ...], frozenset[int]]:
    stop = profile.stop_ids(tokenizer)
    markers = {token for name, token in tokenizer.special_tokens.items() if "tool_call" in name}
    return stop, frozenset(markers | set(stop))


@pytest.mark.parametrize("choice", ["auto", "required", "get_weather"])
@pytest.mark.parametrize("profile", [K2, HERMES], ids=lambda profile: profile.name)
def test_calls_are_valid_by_construction(tokenizer: Tokenizer, profile: ChatProfile, choice: str):
    grammars = factory(tokenizer, profile)
    stop, prefer = stop_and_markers(tokenizer, profile)
    finished = num_calls = 0
    for seed in range(60):
        written = write(grammars.tools(TOOLS, choice), stop, seed, prefer)
        if written is None:
            continue
        finished += 1
        reply = parse_reply(profile, written, tokenizer)
        check_calls(reply)
        num_calls += len(reply.calls)
        if choice != "auto":
            assert reply.calls
        if choice == "get_weather":
            assert [call.name for call in reply.calls] == ["get_weather"]
    assert finished >= 20
    assert num_calls >= (0 if choice == "auto" and profile is HERMES else 10)


@pytest.mark.parametrize("profile", [K2, HERMES], ids=lambda profile: profile.name)
def test_strings_of_calls_hold_no_tabs_and_the_text_around_them_may(
    tokenizer: Tokenizer, profile: ChatProfile
):
    schema = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 9}}}
    tool = ToolSpec("note", "", {**schema, "required": ["text"]})
    grammar = factory(tokenizer, profile).tools([tool], "auto")
    tab = tokenizer.vocabulary().index(b"\t")

    def allows(token: int) -> bool:
        allowed_V = grammar.allowed_V()
        return allowed_V is None or bool(allowed_V[token])

    def write(text: str) -> None:
        for token in tokenizer.encode(text, allow_special=True):
            grammar.accept(token)

    assert profile.calls
    tag = profile.calls.tag("note")
    index = "0" if tag.index_pattern else ""
    section = profile.calls.section or ("", "")
    assert allows(tab)
    write(f'Let me see.\t{section[0]}{tag.begin}{index}{tag.arguments_begin}{{"text":"a')
    assert not allows(tab)
    write('"}' + tag.end + section[1])
    assert allows(tab)


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("profile", [K2, HERMES], ids=lambda profile: profile.name)
def test_one_call_ends_a_reply_that_may_have_no_more(
    tokenizer: Tokenizer, profile: ChatProfile, choice: str
):
    grammars = factory(tokenizer, profile)
    stop, prefer = stop_and_markers(tokenizer, profile)
    num_calls = 0
    for seed in range(30):
        written = write(grammars.tools(TOOLS, choice, parallel=False), stop, seed, prefer)
        if written is None:
            continue
        reply = parse_reply(profile, written, tokenizer)
        check_calls(reply)  # the section is closed, too
        assert len(reply.calls) <= 1
        num_calls += len(reply.calls)
    if choice == "required" or profile is K2:  # by chance nobody writes <tool_call> in letters
        assert num_calls > 5


@pytest.mark.parametrize("profile", [K2, HERMES], ids=lambda profile: profile.name)
def test_what_a_model_should_write_is_allowed(tokenizer: Tokenizer, profile: ChatProfile):
    call = '{"city": "Paris", "days": 3}'
    if profile is K2:
        text = (
            "Let me see.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
            f"<|tool_call_argument_begin|>{call}<|tool_call_end|><|tool_call_begin|>"
            "functions.clock.now:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
            "<|tool_calls_section_end|>"
        )
    else:
        named = f'{{"name": "get_weather", "arguments": {call}}}'
        text = f"Let me see.\n<tool_call>\n{named}\n</tool_call>"
    grammar = factory(tokenizer, profile).tools(TOOLS, "auto")
    for token in tokenizer.encode(text, allow_special=True):
        # Not every token is in xgrammar's mask that its matcher accepts ("ool" of "</tool_call>"),
        # so a model may be led to write the same text in other tokens.
        grammar.accept(token)
    last_V = grammar.allowed_V()
    assert last_V is not None
    assert last_V[list(profile.stop_ids(tokenizer))].all()
    assert not last_V[tokenizer.vocab_size :].any()


def test_free_text_holds_no_other_special_token(tokenizer: Tokenizer):
    allowed_V = factory(tokenizer).tools(TOOLS, "auto").allowed_V()
    assert allowed_V is not None
    allowed = {name for name, token in tokenizer.special_tokens.items() if allowed_V[token]}
    assert allowed == {"<|tool_calls_section_begin|>", "<|im_end|>", "[EOS]", "[EOT]"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
        {"type": "string"},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        {"enum": ["x", 1, None]},
        {"anyOf": [{"type": "null"}, {"type": "integer", "maximum": 3, "minimum": -3}]},
    ],
)
def test_json_follows_its_schema(tokenizer: Tokenizer, schema: dict[str, Any]):
    grammars = factory(tokenizer)
    stop, prefer = stop_and_markers(tokenizer, K2)
    prefer |= {tokenizer.encode('"')[0]}  # a random writer seldom ends a string
    texts = [write(grammars.json_schema(schema), stop, seed, prefer) for seed in range(60)]
    finished = [tokenizer.decode(text) for text in texts if text is not None]
    assert len(finished) >= 10
    for text in finished:
        jsonschema.validate(json.loads(text), schema)


def test_patterns_and_choices(tokenizer: Tokenizer):
    grammars = factory(tokenizer)
    stop, prefer = stop_and_markers(tokenizer, K2)
    seen = set()
    for seed in range(30):
        chosen = write(grammars.choice(["yes", "no", "東京"]), stop, seed, prefer)
        assert chosen is not None
        seen.add(tokenizer.decode(chosen))
        matched = write(grammars.regex("[a-c]{2}-[0-9]+"), stop, seed, prefer)
        assert matched is None or tokenizer.decode(matched)[2] == "-"
    assert seen == {"yes", "no", "東京"}


def test_what_cannot_be_compiled_is_refused_by_name(tokenizer: Tokenizer):
    grammars = factory(tokenizer)
    broken = ToolSpec("broken", "", {"type": "objekt"})
    with pytest.raises(ConfigError, match=r"schema of 'broken' .*objekt"):
        grammars.tools((WEATHER, broken), "auto")
    with pytest.raises(ConfigError, match="JSON schema"):
        grammars.json_schema({"$ref": "#/nowhere"})
    with pytest.raises(ConfigError, match="regular expression '\\('"):
        grammars.regex("(")
    with pytest.raises(ConfigError, match="no empty one"):
        grammars.choice(["a", ""])
    with pytest.raises(ConfigError, match=r"no such tool \(offered: get_weather, clock.now\)"):
        grammars.tools(TOOLS, "other")
    with pytest.raises(ConfigError, match="no format of tool calls"):
        factory(tokenizer, PLAIN).tools(TOOLS, "auto")


def test_a_text_that_can_be_read_in_ever_more_ways_is_ended(tokenizer: Tokenizer):
    """The engine's other requests wait for each token."""
    vocabulary = tokenizer.vocabulary()
    info = xgrammar.TokenizerInfo(
        vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[tokenizer.eos_id]
    )
    compiled = xgrammar.GrammarCompiler(info).compile_regex("((.?){100}){30}")
    grammar = TokenGrammar(
        xgrammar.GrammarMatcher(compiled), len(vocabulary), (), Surrogates.of(vocabulary)
    )
    letters = frozenset(tokenizer.encode("The quick brown fox"))
    with pytest.raises(ConfigError, match="takes the server too long"):
        write(grammar, (tokenizer.eos_id,), seed=0, prefer=letters)


def test_not_every_schema_is_tried_where_all_together_take_too_long(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    """Finding the one to blame could take hours, and other grammars wait."""
    grammars = GrammarFactory(tokenizer, tokenizer.vocab_size, K2)
    clock = ManualClock()
    monkeypatch.setattr(grammars, "_clock", clock)
    compiled = xgrammar.GrammarCompiler(grammars._process._info).compile_builtin_json_grammar()
    asked: list[str] = []

    def compile(kind: str, source: str) -> xgrammar.CompiledGrammar:
        clock.advance(1)
        asked.append(source)
        if len(asked) == 1:
            raise ConfigError("it takes too long")
        return compiled

    monkeypatch.setattr(grammars._process, "compile", compile)
    tools = [ToolSpec(f"tool{i}", "", {"type": "object"}) for i in range(50)]
    with pytest.raises(ConfigError, match="the tools cannot be compiled"):
        grammars.tools(tools, "auto")
    assert len(asked) < 6
