"""The parser of replies: what it finds, whatever the pieces, in text and in ids."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.chat.call_ids import CallIds
from selenite.chat.events import (
    ArgumentsDelta,
    CallFinished,
    CallStarted,
    ContentDelta,
    Malformed,
    Outcome,
    ReasoningDelta,
    collect,
)
from selenite.chat.events import MalformedReason as R
from selenite.chat.profile import HERMES, HERMES_THINKING, K2, K2_THINKING, PLAIN, ChatProfile
from selenite.chat.reply_parser import ReplyParser, parse_reply
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError
from tests.fixtures.replies import (
    F0,
    HERMES_SAMPLES,
    HERMES_THINKING_SAMPLES,
    K2_SAMPLES,
    K2_THINKING_SAMPLES,
    NASTY,
    call,
    hermes,
    k2_call,
    k2_section,
    tagged,
)

SAMPLES = [
    *((K2, sample) for sample in K2_SAMPLES),
    *((K2_THINKING, sample) for sample in (*K2_SAMPLES, *K2_THINKING_SAMPLES)),
    *((HERMES, sample) for sample in HERMES_SAMPLES),
    *((HERMES_THINKING, sample) for sample in (*HERMES_SAMPLES, *HERMES_THINKING_SAMPLES)),
]
TEXTS = sorted({(profile.name, sample[0]) for profile, sample in SAMPLES})
PROFILES = {profile.name: profile for profile, _ in SAMPLES}


def parsed(profile: ChatProfile, pieces, tokenizer: Tokenizer | None = None):
    parser = ReplyParser(profile, tokenizer)
    feed = parser.feed_ids if tokenizer else parser.feed_text
    events = [event for piece in pieces for event in feed(piece)] + parser.finish()
    check_order(events)
    return collect(events)


def check_order(events) -> None:
    """Started, then arguments, then finished or malformed; no empty delta; one call at a time."""
    open_call, next_index = None, 0
    for event in events:
        match event:
            case ContentDelta(text) | ReasoningDelta(text):
                assert text
                assert open_call is None
            case CallStarted(index, id, name):
                assert open_call is None
                assert (index, bool(id), bool(name)) == (next_index, True, True)
                open_call, next_index = index, index + 1
            case ArgumentsDelta(index, text):
                assert index == open_call
                assert text
            case CallFinished(index):
                assert index == open_call
                open_call = None
            case Malformed(index, _, detail, text):
                assert index == open_call
                assert detail
                assert text
                open_call = None
    assert open_call is None


@pytest.mark.parametrize(("profile", "sample"), SAMPLES, ids=lambda part: None)
def test_what_is_found(profile, sample):
    text, content, reasoning, calls, reasons = sample
    reply = parse_reply(profile, text)
    assert (reply.content, reply.reasoning) == (content, reasoning)
    assert list(reply.calls) == calls
    assert [fault.reason for fault in reply.malformed] == reasons
    expected = Outcome.MALFORMED if reasons else Outcome.CALLS if calls else Outcome.TEXT
    assert reply.outcome is expected


@pytest.mark.parametrize(("name", "text"), TEXTS)
def test_every_two_way_split_gives_the_same(name, text):
    whole = parse_reply(PROFILES[name], text)
    for place in range(len(text) + 1):
        assert parsed(PROFILES[name], (text[:place], text[place:])) == whole, place
    assert parsed(PROFILES[name], text) == whole  # one character at a time


def test_ten_thousand_random_splits_give_the_same():
    draw = random.Random(0)
    wholes = [(PROFILES[name], text, parse_reply(PROFILES[name], text)) for name, text in TEXTS]
    for _ in range(10_000):
        profile, text, whole = draw.choice(wholes)
        places = sorted(draw.choices(range(len(text) + 1), k=draw.randint(1, 8)))
        pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
        assert parsed(profile, pieces) == whole, pieces


SCRAPS = [
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|tool_call_section_begin|>",
    *("<tool_call>", "</tool_call>", "<think>", "</think>", "<tool_", "<|tool", "</", ">"),
    *("functions.f:0", '{"name": "f", "arguments": {}}', '"arguments"', '"name"', '{"a": 1}'),
    *('{"name": "f", "arguments": {', '"arguments": {"a": 1}', '"name": "g"', '{"name": 3', '"}}'),
    *('<tool_call>{"arguments": {"b": "', ', "name": "f"}', "<tool_call>[", "{}", "]</tool_call>"),
    *('{"', '"', "{", "}", "[", "]", ",", ":", "\\", " ", "\n", "f", "1", "é", "🙂"),
]


@given(
    name=st.sampled_from(sorted(PROFILES)),
    pieces=st.lists(st.sampled_from(SCRAPS), max_size=14),
    places=st.lists(st.integers(0, 200), max_size=5),
)
@settings(max_examples=400, deadline=None)
def test_anything_at_all_gives_the_same_however_it_is_split(name, pieces, places):
    text, profile = "".join(pieces), PROFILES[name]
    whole = parse_reply(profile, text)
    places = sorted(place for place in places if place < len(text))
    parts = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert parsed(profile, parts) == whole
    assert parsed(profile, text) == whole


# --- ids


@pytest.fixture(scope="session")
def thinker(tokenizer, tmp_path_factory) -> Tokenizer:
    """A vocabulary with K2-Thinking's two tokens beside K2's."""
    return with_tokens(tokenizer, ("<think>", "</think>"), tmp_path_factory.mktemp("thinker"))


def with_tokens(tokenizer: Tokenizer, names: tuple[str, ...], folder: Path) -> Tokenizer:
    tokenizer.save(folder)
    file = folder / "tokenizer.json"
    library = json.loads(file.read_text())
    for name in names:
        last = library["added_tokens"][-1]
        library["added_tokens"].append({**last, "id": last["id"] + 1, "content": name})
    file.write_text(json.dumps(library))
    return Tokenizer.load(folder)


def encoded(profile: ChatProfile, text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(text, allow_special=profile in (K2, K2_THINKING))


@pytest.mark.parametrize(("name", "text"), TEXTS)
def test_ids_give_what_text_gives_however_they_are_split(name, text, tokenizer, thinker):
    profile = PROFILES[name]
    vocabulary = thinker if profile is K2_THINKING else tokenizer
    ids = encoded(profile, text, vocabulary)
    whole = parse_reply(profile, text)
    for place in range(len(ids) + 1):
        assert parsed(profile, (ids[:place], ids[place:]), vocabulary) == whole
    assert parsed(profile, [[id] for id in ids], vocabulary) == whole


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_ids_at_all_give_the_same_however_they_are_split(data, thinker):
    specials = sorted(thinker.special_tokens.values())
    texts = [id for scrap in SCRAPS for id in thinker.encode(scrap)]
    some = st.sampled_from([*specials, *texts]) | st.integers(0, thinker.vocab_size - 1)
    ids = data.draw(st.lists(some, max_size=40))
    profile = data.draw(st.sampled_from([K2, K2_THINKING, HERMES, HERMES_THINKING, PLAIN]))
    whole = parse_reply(profile, ids, thinker)
    assert parsed(profile, [[id] for id in ids], thinker) == whole
    place = data.draw(st.integers(0, len(ids)))
    assert parsed(profile, (ids[:place], ids[place:]), thinker) == whole


@pytest.mark.parametrize("text", [text for text, *_ in (*K2_SAMPLES, *K2_THINKING_SAMPLES)])
def test_text_that_looks_like_special_tokens_is_text(text, thinker):
    for pieces in ([thinker.encode(text)], [[id] for id in thinker.encode(text)]):
        reply = parsed(K2_THINKING, pieces, thinker)
        assert reply == parse_reply(PLAIN, text)
        assert reply.content == text


def test_markers_inside_arguments_are_text_unless_they_are_tokens(tokenizer):
    spelled = '{"a": "<|tool_call_end|><|tool_calls_section_end|>"}'
    token = tokenizer.special_id
    ids = [
        token("<|tool_calls_section_begin|>"),
        token("<|tool_call_begin|>"),
        *tokenizer.encode("functions.f:0"),
        token("<|tool_call_argument_begin|>"),
        *tokenizer.encode(spelled),
        token("<|tool_call_end|>"),
    ]
    assert parse_reply(K2, ids, tokenizer).calls == (call("f", spelled, 0),)
    inside = ids.index(token("<|tool_call_argument_begin|>")) + 3
    broken = [*ids[:inside], token("[PAD]"), *ids[inside:]]
    (fault,) = parse_reply(K2, broken, tokenizer).malformed
    assert fault.reason is R.STRAY_TOKEN
    assert fault.text == tokenizer.decode(broken[1:])


def test_tags_that_are_special_tokens_count_as_tokens_only(tokenizer, tmp_path):
    tagging = with_tokens(tokenizer, ("<tool_call>", "</tool_call>"), tmp_path)
    begin, end = map(tagging.special_id, ("<tool_call>", "</tool_call>"))
    spelled = tagged(hermes("f", "{}"))
    body = hermes("f", '{"a": "</tool_call><tool_call>"}')
    ids = [*tagging.encode(spelled), begin, *tagging.encode(body), end]
    for pieces in ([ids], [[id] for id in ids]):
        reply = parsed(HERMES, pieces, tagging)
        assert reply.content == spelled
        assert reply.calls == (call("f", '{"a": "</tool_call><tool_call>"}', 0),)
        assert reply.malformed == ()


def test_special_tokens_never_reach_content_or_reasoning(tokenizer):
    token = tokenizer.special_id
    ids = [*tokenizer.encode("a"), token("<|tool_call_end|>"), *tokenizer.encode("b")]
    reply = parse_reply(K2, [*ids, token("[PAD]"), token("<|im_end|>")], tokenizer)
    assert reply.content == "ab"
    assert [(f.reason, f.text) for f in reply.malformed] == [
        (R.STRAY_TOKEN, "<|tool_call_end|>"),
        (R.STRAY_TOKEN, "[PAD]"),
    ]


def test_an_end_token_ends_what_is_open(tokenizer):
    ids = tokenizer.encode("<|tool_calls_section_begin|>" + F0[:-20], allow_special=True)
    cut = parse_reply(K2, ids, tokenizer)
    assert parse_reply(K2, [*ids, tokenizer.special_id("<|im_end|>")], tokenizer) == cut
    assert cut.outcome is Outcome.MALFORMED


def test_a_character_in_several_tokens_is_not_cut(tokenizer):
    ids = tokenizer.encode("🙂é")
    assert len(ids) > 2
    parser = ReplyParser(K2, tokenizer)
    events = [event for id in ids for event in parser.feed_ids([id])] + parser.finish()
    assert events == [ContentDelta("🙂"), ContentDelta("é")]
    assert parse_reply(K2, ids[:2], tokenizer).content == "\ufffd"


def test_a_vocabulary_without_the_tokens_is_refused(thinker, tmp_path):
    thinker.save(tmp_path)
    library = json.loads((tmp_path / "tokenizer.json").read_text())
    for added in library["added_tokens"]:
        added["content"] = added["content"].replace("tool_call_end", "other")
    (tmp_path / "tokenizer.json").write_text(json.dumps(library))
    with pytest.raises(TokenizerError, match=r"'k2' needs the special token '<\|tool_call_end"):
        ReplyParser(K2, Tokenizer.load(tmp_path))


# --- what streams show


def test_arguments_stream_as_they_are_written():
    parser = ReplyParser(HERMES)
    parser.feed_text('<tool_call>{"name": "f", "arguments": ')
    assert parser.feed_text("{") == [
        CallStarted(0, "functions.f:0", "f", None),
        ArgumentsDelta(0, "{"),
    ]
    assert parser.feed_text('"a": "b') == [ArgumentsDelta(0, '"a": "b')]
    assert parser.in_call
    assert parser.feed_text('"}}</tool_call>') == [ArgumentsDelta(0, '"}'), CallFinished(0)]
    assert not parser.in_call


def test_only_what_may_become_a_marker_is_held_back():
    parser = ReplyParser(K2)
    assert parser.feed_text("a <|tool_") == [ContentDelta("a ")]
    assert parser.feed_text("box|>") == [ContentDelta("<|tool_box|>")]


def test_the_singular_of_the_section_is_read_in_text():
    text = k2_section(F0).replace("calls_section", "call_section")
    assert parse_reply(K2, text) == parse_reply(K2, k2_section(F0))


def test_malformed_parts_are_kept_whole():
    for text in ("<tool_call>\nf(1)\n</tool_call>", tagged(hermes("f", NASTY) + "}")):
        assert parse_reply(HERMES, text).malformed[0].text == text
    text = k2_call("functions.f:0", '{"a": nil}')
    assert parse_reply(K2, k2_section(text)).malformed[0].text == text


def test_reasoning_that_the_prompt_opened():
    parser = ReplyParser(HERMES_THINKING, in_reasoning=True)
    assert parser.in_reasoning
    events = [*parser.feed_text("\nHm.\n</think>\n\nYes."), *parser.finish()]
    assert collect(events).message().reasoning == "Hm."
    assert collect(events).content == "Yes."


def test_without_tools_text_that_looks_like_a_call_is_text():
    text = tagged(hermes("f", "{}"))
    parser = ReplyParser(HERMES, tools_offered=False)
    reply = collect([*parser.feed_text(text), *parser.finish()])
    assert (reply.content, reply.calls) == (text, ())


def test_ids_go_on_counting_over_the_conversation():
    ids = CallIds()
    ids.admit("f", "functions.f:0")
    ids.admit("g", "functions.g:1")
    parser = ReplyParser(HERMES, call_ids=ids)
    events = [*parser.feed_text(tagged(hermes("f", "{}"))), *parser.finish()]
    assert collect(events).calls == (call("f", "{}", 2),)
    parser = ReplyParser(K2, call_ids=ids)
    events = [*parser.feed_text(k2_section(F0)), *parser.finish()]
    assert events[0] == CallStarted(0, "functions.f:2", "f", written_id="functions.f:0")


def test_depth_is_bounded():
    for depth, calls in ((127, 1), (128, 0), (100_000, 0)):
        arguments = '{"a":' + "[" * depth + "]" * depth + "}"
        reply = parse_reply(K2, k2_section(k2_call("functions.f:0", arguments)))
        assert len(reply.calls) == calls
