"""The protocol half of Moonshot's vendor verifiers, against a model that writes random text.

Whether a call is made is the model's part; that every call is one its tool takes, that a stream is
the answer in one piece, and that the counts are right is the server's, and is checked here. Bias
on single tokens takes the model to the places where a server goes wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest
import referencing

from selenite.chat.tokenizer import Tokenizer
from tests.fixtures.server import ServerProcess
from tests.fixtures.tool_schemas import (
    EXOTIC_NAMES,
    HARD,
    LOOSE,
    REFUSED,
    SCHEMAS,
    TEXT,
    WHOLE,
    closed,
    one,
)

SECTION = "<|tool_calls_section_begin|>"
CALL = "<|tool_call_begin|>"
ARGUMENTS = "<|tool_call_argument_begin|>"
MARKERS = (
    *(SECTION, "<|tool_calls_section_end|>", CALL, ARGUMENTS, "<|tool_call_end|>"),
    *("<|im_end|>", "<|im_middle|>", "<think>", "</think>"),
)
CALL_ID = re.compile(r"functions\.(.+):(\d+)")
HELLO = [{"role": "user", "content": "Hello, fox."}]
AT_ONCE = 24  # completions open at a time


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ServerProcess]:
    """Fast, unlike the other tests': what is checked here holds for any text; in float32, so that
    texts are about the same on every processor."""
    started = ServerProcess(model, "--dtype", "float32", batch_invariant=False)
    yield started
    started.stop()


def tool(name: str, schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def called(*ids: str, name: str = "look") -> list[dict[str, Any]]:
    """A turn of the assistant that makes calls of these ids, and their results."""
    calls = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": '{"value":1}'}}
        for id_ in ids
    ]
    results = [{"role": "tool", "tool_call_id": id_, "content": "sunny"} for id_ in ids]
    return [{"role": "assistant", "content": None, "tool_calls": calls}, *results]


@dataclass
class Answer:
    """What a client makes of one choice, however it came."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)  # id, name, arguments
    malformed: list[tuple[str, str]] = field(default_factory=list)  # reason, text
    finish: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def whole(ai: openai.OpenAI, **fields: Any) -> Answer:
    """The answer in one piece."""
    completion = ai.chat.completions.create(**fields)
    (choice,) = completion.choices
    message = choice.message
    assert message.role == "assistant"
    assert message.tool_calls is None or message.tool_calls  # a list is never empty
    assert completion.usage is not None
    return Answer(
        message.content or "",
        getattr(message, "reasoning_content", None) or "",
        [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or []],
        [(m["reason"], m["text"]) for m in getattr(message, "malformed", None) or []],
        choice.finish_reason,
        completion.usage.prompt_tokens,
        completion.usage.completion_tokens,
    )


def streamed(ai: openai.OpenAI, **fields: Any) -> Answer:
    """The answer in pieces, put together by index as the verifiers do; no piece is empty."""
    answer = Answer()
    calls: dict[int, list[str]] = {}
    usage = {"include_usage": True}
    chunks = list(ai.chat.completions.create(**fields, stream=True, stream_options=usage))
    assert chunks[0].choices[0].delta.role == "assistant"
    for chunk in chunks[1:-1]:
        (choice,) = chunk.choices
        assert chunk.usage is None
        assert not answer.finish, "news after the reason to finish"
        delta = choice.delta
        text, thought = delta.content, getattr(delta, "reasoning_content", None)
        malformed = getattr(delta, "malformed", None)
        assert text or thought or delta.tool_calls or malformed or choice.finish_reason
        answer.content += text or ""
        answer.reasoning += thought or ""
        for piece in delta.tool_calls or []:
            assert piece.function is not None
            if piece.index not in calls:
                assert piece.index == max(calls, default=-1) + 1
                assert piece.id
                assert piece.type == "function"
                assert piece.function.name
                calls[piece.index] = [piece.id, piece.function.name, ""]
            else:
                assert piece.index == max(calls), "a call goes on after the next began"
                assert piece.id is None
                assert not piece.function.name
                assert piece.function.arguments, "an empty delta"
            calls[piece.index][2] += piece.function.arguments or ""
        for part in malformed or []:
            answer.malformed.append((part["reason"], part["text"]))
            if part["index"] is not None:
                del calls[part["index"]]
        answer.finish = choice.finish_reason or ""
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    answer.prompt_tokens = chunks[-1].usage.prompt_tokens
    answer.completion_tokens = chunks[-1].usage.completion_tokens
    answer.calls = [(id_, name, text) for id_, name, text in calls.values()]
    assert answer.finish
    return answer


def problems(answer: Answer, schemas: dict[str, Any], earlier_ids: Iterable[str] = ()) -> list[str]:
    """All that a verifier would hold against an answer to a forced call."""
    found = [f"{m} in text" for m in MARKERS if m in answer.content + answer.reasoning]
    if answer.content or answer.reasoning:
        found.append(f"text beside forced calls: {answer.content[:40]!r}")
    if answer.finish not in ("tool_calls", "length"):
        found.append(f"finish_reason {answer.finish}, malformed {answer.malformed}")
    if answer.finish == "tool_calls" and not answer.calls:
        found.append("no calls")
    if answer.finish == "tool_calls" and answer.malformed:
        found.append(f"malformed {answer.malformed}")
    if any(reason != "truncated" for reason, _ in answer.malformed):
        found.append(f"malformed {answer.malformed}")
    ids = [*earlier_ids, *(id_ for id_, _, _ in answer.calls)]
    if len(set(ids)) < len(ids):
        found.append(f"an id twice: {ids}")
    for id_, name, text in answer.calls:
        match = CALL_ID.fullmatch(id_)
        if match is None or match[1] != name or name not in schemas:
            found.append(f"id {id_!r} of {name!r}")
        elif complaint := complaint_of(text, schemas[name]):
            found.append(complaint)
        elif not isinstance(json.loads(text), dict):
            found.append(f"arguments are no object: {text}")
    return found


def complaint_of(text: str, schema: Any) -> str | None:
    """Why a text is not what a schema asks for."""
    check = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
    try:
        check.validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError, referencing.exceptions.Unresolvable) as error:
        return f"{text!r}: {str(error).splitlines()[0]}"
    return None


def at_once(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, items))


def is_compact(text: str) -> bool:
    """No line ends, no tabs, and outside strings no two spaces together."""
    return not re.search(r"[\n\r\t]|  ", re.sub(r'"(\\.|[^"\\])*"', '""', text))


@pytest.fixture(scope="session")
def ids_of(model: Path) -> Callable[[str], int]:
    """The id of a special token, or of a text that is one token."""
    tokenizer = Tokenizer.load(model)

    def id_of(text: str) -> int:
        (token,) = tokenizer.encode(text, allow_special=True)
        return token

    return id_of


@pytest.fixture(scope="session")
def hasty(model: Path) -> dict[str, int]:
    """A bias that leaves out spaces between JSON's tokens, and keeps indices short."""
    tokenizer = Tokenizer.load(model)
    spaced = re.compile(rb'[{}\[\]:,"]*\s+[{}\[\]:,"]*')
    spaces = [i for i, word in enumerate(tokenizer.vocabulary()) if spaced.fullmatch(word)]
    return {**dict.fromkeys(map(str, spaces), -100), str(tokenizer.special_id(ARGUMENTS)): 100}


@pytest.fixture
def zeros(hasty: dict[str, int], ids_of: Callable[[str], int]) -> dict[str, int]:
    """A bias that numbers each call 0."""
    return {**hasty, str(ids_of("0")): 50}


def refused(response: httpx.Response, words: str) -> None:
    """400 in OpenAI's shape, with these words."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


# --- 1. Schemas of tools -------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["named", pytest.param("required", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))]
)
def test_forced_calls_are_what_their_schemas_ask_for(
    ai: openai.OpenAI, hasty: dict[str, int], choice: str, part: int
) -> None:
    """Named: after two calls in the history. Required: the next schema of the list beside it."""
    names = list(SCHEMAS)
    earlier = ["functions.look:0", "functions.look:1"] if choice == "named" else []
    messages = [*HELLO, *called(*earlier), *HELLO] if earlier else HELLO
    known: dict[str, Any] = {"model": "tiny", "messages": messages, "temperature": 1, "seed": 5}
    known |= {"max_tokens": 64, "logit_bias": hasty}

    def check(name: str) -> tuple[str, list[str], bool]:
        other = names[(names.index(name) + 1) % len(names)]
        offered = [name] if choice == "named" else [name, other]
        schemas = {n: SCHEMAS[n] for n in offered}
        fields = {**known, "tools": [tool(n, schema) for n, schema in schemas.items()]}
        if choice == "named":
            fields["tool_choice"] = named(name)
        else:
            fields |= {"tool_choice": "required", "parallel_tool_calls": False}
        answer, pieces = whole(ai, **fields), streamed(ai, **fields)
        found = problems(answer, schemas, earlier)
        if answer != pieces:
            found.append(f"streamed {pieces}, in one piece {answer}")
        if len(answer.calls) > 1:
            found.append(f"more than one call: {answer.calls}")
        return name, found, answer.finish == "tool_calls"

    checked = at_once(check, names[part::4])
    bad = [f"{name}: {found}" for name, found, _ in checked if found]
    assert not bad, "\n".join(bad)
    finished = sum(done for _, _, done in checked)
    assert finished >= 0.85 * len(checked), f"{finished} of {len(checked)} made a call"


def test_hard_schemas_are_refused_or_obeyed(http: httpx.Client, hasty: dict[str, int]) -> None:
    """Or, where the documents say that a word is passed over, followed but for that word."""

    def check(name: str) -> tuple[str, str, list[str]]:
        body: dict[str, Any] = {"model": "tiny", "messages": HELLO, "seed": 6, "max_tokens": 64}
        body |= {"tools": [tool(name, HARD[name])], "tool_choice": "required"}
        body |= {"logit_bias": hasty, "parallel_tool_calls": False}
        response = http.post("/v1/chat/completions", json=body)
        if response.status_code != 200:
            error = response.json()["error"]["message"]
            known = response.status_code == 400 and (name in error or "contradicts" in error)
            return name, "refused", [] if known else [response.text]
        (choice,) = response.json()["choices"]
        message = choice["message"]
        answer = Answer(
            content=message["content"] or "",
            calls=[
                (c["id"], c["function"]["name"], c["function"]["arguments"])
                for c in message["tool_calls"] or []
            ],
            malformed=[(m["reason"], m["text"]) for m in message["malformed"] or []],
            finish=choice["finish_reason"],
        )
        return name, answer.finish, problems(answer, {name: {} if name in LOOSE else HARD[name]})

    checked = at_once(check, HARD)
    bad = [f"{name}: {found}" for name, _, found in checked if found]
    assert not bad, "\n".join(bad)
    assert {name for name, what, _ in checked if what == "refused"} == REFUSED
    assert sum(what == "tool_calls" for _, what, _ in checked) >= 20


# --- 2. tool_choice ------------------------------------------------------------------------------

LOOK = [tool("look", one(WHOLE))]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tool_choice": "required"}, "tools"),
        ({"tool_choice": "required", "tools": []}, "tools"),
        ({"tool_choice": named("look")}, "look"),
        ({"tool_choice": named("look"), "tools": []}, "look"),
        ({"tool_choice": named("seek"), "tools": LOOK}, "seek"),
        ({"tool_choice": "any", "tools": LOOK}, "tool_choice"),
        ({"tool_choice": "Required", "tools": LOOK}, "tool_choice"),
        ({"tool_choice": "", "tools": LOOK}, "tool_choice"),
        ({"tool_choice": 1, "tools": LOOK}, "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": LOOK}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "look"}, "tools": LOOK}, "tool_choice"),
        ({"tools": [tool("none", {})]}, "none"),
        ({"tools": [tool("auto", {})]}, "auto"),
        ({"tools": [tool("required", {})]}, "required"),
        ({"tools": [tool("", {})]}, "name"),
        ({"tools": [tool("look:0\n", {})]}, "name"),
        ({"tools": [tool("look here", {})]}, "name"),
        ({"tools": [*LOOK, *LOOK]}, "look"),
        ({"tools": LOOK, "functions": [{"name": "look"}]}, "functions"),
    ],
)
def test_choices_that_mean_nothing_are_refused(
    http: httpx.Client, fields: dict[str, Any], words: str
) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 2, **fields}
    refused(http.post("/v1/chat/completions", json=body), words)
    refused(http.post("/v1/chat/completions", json={**body, "stream": True}), words)


@pytest.mark.parametrize("tools", [None, []])
@pytest.mark.parametrize("choice", [None, "none", "auto"])
def test_without_tools_none_and_auto_change_nothing(
    ai: openai.OpenAI, tools: list[Any] | None, choice: str | None
) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 8, "seed": 1}
    assert whole(ai, **fields) == whole(ai, **fields, tools=tools, tool_choice=choice)


def test_none_renders_the_tools_and_cannot_open_a_call(
    ai: openai.OpenAI, ids_of: Callable[[str], int], hasty: dict[str, int]
) -> None:
    opening = {str(ids_of(SECTION)): 100, str(ids_of(CALL)): 90}
    fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "tools": LOOK, "max_tokens": 30}
    fields |= {"seed": 2, "logit_bias": {**hasty, **opening}}
    forbidden = whole(ai, **fields, tool_choice="none")
    assert forbidden.calls == []
    assert forbidden.finish in ("stop", "length")
    assert all(reason == "stray_token" for reason, _ in forbidden.malformed)  # reserved tokens
    assert not any(marker in forbidden.content for marker in MARKERS)
    assert forbidden == streamed(ai, **fields, tool_choice="none")
    free = whole(ai, **fields, tool_choice="auto")
    assert free.calls
    assert free.prompt_tokens == forbidden.prompt_tokens
    assert whole(ai, **fields) == free  # with tools, auto is what holds unless told


def test_in_auto_text_before_a_call_stays_and_the_call_is_valid(
    ai: openai.OpenAI, ids_of: Callable[[str], int]
) -> None:
    """The bias opens a section after a few words, and the id would get a newline if it could."""
    bias = {str(ids_of(SECTION)): 4, str(ids_of("\n")): 5, str(ids_of("<|im_end|>")): -100}
    schemas = {"look": one(TEXT), "look.far-away": closed({"to": WHOLE, "why": TEXT}, ["to"])}
    tools = [tool(name, schema) for name, schema in schemas.items()]

    def check(seed: int) -> tuple[list[str], Answer]:
        fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "tools": tools}
        fields |= {"logit_bias": bias, "seed": seed, "max_tokens": 90}
        answer = whole(ai, **fields)
        assert answer.finish in ("tool_calls", "stop", "length")
        assert answer.finish != "tool_calls" or answer.calls
        assert answer.finish != "stop" or not answer.calls
        # Text may stand there, and no call, and reserved tokens that mean nothing.
        assert {reason for reason, _ in answer.malformed} <= {"truncated", "stray_token"}
        found = problems(replace(answer, content="", malformed=[], finish="length"), schemas)
        found += [f"{m} in text" for m in MARKERS if m in answer.content]
        return found + ["streams otherwise"] * (answer != streamed(ai, **fields)), answer

    checked = at_once(check, range(8))
    assert [found for found, _ in checked if found] == []
    assert sum(bool(answer.content and answer.calls) for _, answer in checked) >= 4
    assert {name for _, answer in checked for _, name, _ in answer.calls} == set(schemas)


@pytest.mark.parametrize("name", ["a.b", "a-b", "functions.a", "a.b-c_d.0-1", "a" * 64, "0", "_"])
def test_names_of_tools_come_back_as_they_are(
    ai: openai.OpenAI, hasty: dict[str, int], name: str
) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 120, "seed": 4}
    fields |= {"logit_bias": hasty, "tools": [tool(name, one(WHOLE))], "tool_choice": named(name)}
    answer = whole(ai, **fields)
    assert problems(answer, {name: one(WHOLE)}) == []
    assert {found for _, found, _ in answer.calls} == {name}
    assert streamed(ai, **fields) == answer


@pytest.mark.parametrize(
    "bad_ids",
    [
        ("call_59ad", "call_60ad"),
        ("functions.look:0\n", "functions.look:1\n"),
        ("functions.other:0", "functions.more:1"),
        ("look:0", "look:1"),
        ("functions.look:x", "functions.look:"),
        ("<|tool_call_end|>", "functions.look:0<|tool_call_argument_begin|>"),
        ("城市", "🙂"),
    ],
)
def test_bad_ids_of_a_history_are_rewritten_and_the_count_goes_on(
    http: httpx.Client, ai: openai.OpenAI, zeros: dict[str, int], bad_ids: tuple[str, ...]
) -> None:
    good = [*HELLO, *called("functions.look:0", "functions.look:1"), *HELLO]
    bad = [*HELLO, *called(*bad_ids), *HELLO]
    rendered = [
        http.post("/tokenize", json={"model": "tiny", "messages": m, "tools": LOOK}).json()
        for m in (good, bad)
    ]
    assert rendered[0] == rendered[1]
    fields: dict[str, Any] = {"model": "tiny", "messages": bad, "tools": LOOK, "max_tokens": 50}
    fields |= {"seed": 7, "logit_bias": zeros, "tool_choice": "required"}
    answer = whole(ai, **fields)
    assert answer.prompt_tokens == rendered[0]["count"]
    assert len(answer.calls) > 1
    ids = [id_ for id_, _, _ in answer.calls]  # the model wrote 0 each time
    assert ids == [f"functions.look:{i}" for i in range(2, 2 + len(ids))]
    assert streamed(ai, **fields) == answer
    assert whole(ai, **{**fields, "messages": good}) == answer


def test_a_good_id_stays_and_calls_are_counted_over_all_turns(
    ai: openai.OpenAI, zeros: dict[str, int]
) -> None:
    messages: list[Any] = [*HELLO]
    seen: list[str] = []
    fields: dict[str, Any] = {"model": "tiny", "tools": LOOK, "seed": 1, "max_tokens": 60}
    fields |= {"tool_choice": named("look"), "parallel_tool_calls": False, "logit_bias": zeros}
    for _ in range(4):
        answer = whole(ai, **fields, messages=messages)
        assert answer.finish == "tool_calls"
        assert answer == streamed(ai, **fields, messages=messages)
        ((id_, _, _),) = answer.calls
        seen.append(id_)
        messages += called(id_)
    assert seen == [f"functions.look:{i}" for i in range(4)]


def test_a_result_of_no_call_is_refused(http: httpx.Client) -> None:
    messages = [*HELLO, *called("functions.look:0")[:1]]
    messages += [{"role": "tool", "tool_call_id": "functions.look:7", "content": "sunny"}]
    body = {"model": "tiny", "messages": messages, "max_tokens": 2, "tools": LOOK}
    refused(http.post("/v1/chat/completions", json=body), "functions.look:7")


# --- 3. response_format --------------------------------------------------------------------------


def formatted(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({}, "response_format"),
        ({"type": "yaml"}, "response_format"),
        ({"type": "json_schema"}, "json_schema"),
        ({"type": "json_schema", "json_schema": None}, "json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": one(WHOLE)}}, "name"),
        ({"type": "json_schema", "json_schema": {"name": "", "schema": one(WHOLE)}}, "name"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "schema"),
        (formatted(None), "schema"),
        (formatted("object"), "schema"),
        (formatted([1]), "schema"),
        (formatted(one(WHOLE), strict="yes"), "strict"),
        (formatted(one(WHOLE), strict=1), "strict"),
        (formatted({"type": "float"}), "schema"),
        (formatted(one({"$ref": "#/$defs/nowhere"})), "schema"),
        (formatted(one({"type": "string", "pattern": "(a"})), "schema"),
    ],
)
def test_formats_that_mean_nothing_are_refused(
    http: httpx.Client, form: dict[str, Any], words: str
) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 2, "response_format": form}
    refused(http.post("/v1/chat/completions", json=body), words)


def test_formatted_text_is_valid_and_compact(ai: openai.OpenAI) -> None:
    """Whatever ``strict`` says; a root that is no object too."""
    schemas = {
        **{name: SCHEMAS[name] for name in ("defs", "enum_mixed", "optional", "nullable_any_of")},
        **{name: SCHEMAS[name] for name in ("name_cjk", "name_backslashes", "array_bounds")},
        "root_array": {"type": "array", "items": WHOLE, "minItems": 1, "maxItems": 5},
        "root_string": {"type": "string", "maxLength": 4},
        "root_enum": {"enum": [1, "a", None]},
    }
    cases = [
        (name, seed, strict) for name in schemas for seed, strict in enumerate((None, True, False))
    ]

    def check(case: tuple[str, int, bool | None]) -> tuple[bool, list[str]]:
        name, seed, strict = case
        strictness = {} if strict is None else {"strict": strict}
        fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 48}
        fields |= {"seed": seed, "temperature": 1}
        fields["response_format"] = formatted(schemas[name], **strictness)
        answer = whole(ai, **fields)
        found = [] if answer == streamed(ai, **fields) else ["streams otherwise"]
        if not is_compact(answer.content):
            found.append(f"{name}: not compact: {answer.content!r}")
        if answer.finish == "stop" and (complaint := complaint_of(answer.content, schemas[name])):
            found.append(f"{name}: {complaint}")
        if answer.calls or answer.malformed or answer.finish not in ("stop", "length"):
            found.append(f"{name}: {answer}")
        return answer.finish == "stop", found

    checked = at_once(check, cases)
    assert [found for _, found in checked if found] == []
    assert sum(done for done, _ in checked) >= 0.8 * len(cases)


def test_json_object_is_an_object_and_compact(
    ai: openai.OpenAI, ids_of: Callable[[str], int]
) -> None:
    bias = {str(ids_of(text)): 4 for text in ('"', "}", "]")}  # to come to an end

    def check(seed: int) -> tuple[str, str]:
        fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 80}
        fields |= {"seed": seed, "logit_bias": bias, "response_format": {"type": "json_object"}}
        answer = whole(ai, **fields)
        assert answer == streamed(ai, **fields)
        return answer.finish, answer.content

    checked = at_once(check, range(8))
    texts = [text for finish, text in checked if finish == "stop"]
    assert len(texts) >= 5
    assert all(isinstance(json.loads(text), dict) for text in texts)
    assert [text for _, text in checked if not is_compact(text)] == []


def test_a_format_beside_tools_needs_tool_choice_none(
    http: httpx.Client, ai: openai.OpenAI
) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 40, "tools": LOOK}
    fields |= {"response_format": formatted(one(WHOLE)), "seed": 3}
    for choice in ("auto", "required", named("look"), None):
        body = {**fields, "tool_choice": choice}
        refused(http.post("/v1/chat/completions", json=body), "tool_choice")
    answer = whole(ai, **fields, tool_choice="none")
    assert answer.finish == "stop"
    assert complaint_of(answer.content, one(WHOLE)) is None


# --- 4. usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": HELLO},
        {"messages": [{"role": "system", "content": "Be brief."}, *HELLO]},
        {"messages": [*HELLO, {"role": "assistant", "content": "Hi!"}, *HELLO], "tools": LOOK},
        {"messages": [*HELLO, *called("call_1", "call_2"), *HELLO], "tools": LOOK},
        {"messages": [{"role": "user", "content": "".join(MARKERS)}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "in parts"}]}]},
        {"messages": HELLO, "tools": [tool(n, s) for n, s in list(SCHEMAS.items())[:12]]},
        {"messages": [{"role": "user", "content": "城🙂 Größe\r\n\x00"}]},
    ],
    ids=["user", "system", "turns", "calls", "markers", "parts", "tools", "exotic"],
)
def test_usage_counts_the_tokens_there_are(http: httpx.Client, fields: dict[str, Any]) -> None:
    body = {"model": "tiny", "max_tokens": 9, "seed": 1, "return_token_ids": True, **fields}
    rendered = http.post("/tokenize", json={"model": "tiny", **fields}).json()
    answer = http.post("/v1/chat/completions", json=body).json()
    usage = answer["usage"]
    assert usage["prompt_tokens"] == rendered["count"] == len(rendered["tokens"])
    assert answer["prompt_token_ids"] == rendered["tokens"]
    assert usage["completion_tokens"] == len(answer["choices"][0]["token_ids"]) > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    without = {"model": "tiny", "add_generation_prompt": False, **fields}
    assert http.post("/tokenize", json=without).json()["count"] < rendered["count"]


def test_completion_tokens_count_calls_too(http: httpx.Client, ai: openai.OpenAI) -> None:
    body: dict[str, Any] = {"model": "tiny", "messages": HELLO, "tools": LOOK, "seed": 2}
    body |= {"tool_choice": "required", "max_tokens": 50, "return_token_ids": True}
    answer = http.post("/v1/chat/completions", json=body).json()
    ids = answer["choices"][0]["token_ids"]
    assert answer["usage"]["completion_tokens"] == len(ids) > 10
    extra = {"return_token_ids": True}
    del body["return_token_ids"]
    stream = ai.chat.completions.create(**body, stream=True, extra_body=extra)
    pieces = [getattr(c, "token_ids", None) or [] for chunk in stream for c in chunk.choices]
    assert [id_ for piece in pieces for id_ in piece] == ids


def test_the_second_time_the_prompt_is_in_the_cache(http: httpx.Client) -> None:
    text = "A prompt that nobody sent before, long enough for several pages. " * 8
    body = {"model": "tiny", "max_tokens": 2, "seed": 1, "tools": LOOK}
    body |= {"messages": [{"role": "user", "content": text}], "cache_salt": "ours"}

    def usage(**more: Any) -> tuple[int, int]:
        found = http.post("/v1/chat/completions", json={**body, **more}).json()["usage"]
        return found["prompt_tokens"], found["prompt_tokens_details"]["cached_tokens"]

    prompt, cached = usage()
    assert cached == 0
    again, cached = usage()
    assert again == prompt
    assert prompt // 2 < cached < prompt
    assert usage(cache_salt="theirs") == (prompt, 0)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}])
def test_without_being_asked_a_stream_ends_with_its_reason(
    ai: openai.OpenAI, options: dict[str, Any] | None
) -> None:
    chunks = list(
        ai.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=4, stream=True, stream_options=options
        )
    )
    assert all(chunk.usage is None for chunk in chunks)
    assert [bool(chunk.choices[0].finish_reason) for chunk in chunks[-2:]] == [False, True]


def test_usage_so_far_grows_in_every_chunk(ai: openai.OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 40, "seed": 2}
    fields |= {"tools": LOOK, "tool_choice": "required"}
    chunks = list(ai.chat.completions.create(**fields, stream=True, stream_options=options))
    usages = [chunk.usage for chunk in chunks]
    assert all(usage is not None for usage in usages)
    counts = [usage.completion_tokens for usage in usages if usage]
    assert counts == sorted(counts)
    assert counts[-1] == whole(ai, **fields).completion_tokens
    assert len({usage.prompt_tokens for usage in usages if usage}) == 1


# --- 5. Many at a time ---------------------------------------------------------------------------


@pytest.mark.slow
def test_streams_with_tools_beside_each_other_are_those_alone(
    model: Path, ids_of: Callable[[str], int], hasty: dict[str, int]
) -> None:
    """With grammars that cannot be compiled asked for in the middle, which fail alone."""
    names = ["defs", "any_of_objects", "names_optional", "recursive_list"]
    tools = [tool(name, SCHEMAS[name]) for name in names]

    def fields(i: int) -> dict[str, Any]:
        choices = ["required", named(names[i // 2]), "auto"]
        messages = [{"role": "user", "content": f"Hello, fox {i}." * (1 + i % 3)}]
        known = {"model": "tiny", "messages": messages, "tools": tools, "max_tokens": 60}
        bias = {**hasty, str(ids_of(SECTION)): 5}
        return known | {"seed": i, "tool_choice": choices[i % 3], "logit_bias": bias}

    def poison(_: int) -> int:
        bad = {"tools": [tool("bad", one({"type": "string", "pattern": "(a"}))]}
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 4, **bad}
        return http.post("/v1/chat/completions", json=body).status_code

    invariant = ServerProcess(model)
    with invariant.openai() as ai, invariant.client() as http, ThreadPoolExecutor(12) as pool:
        alone = [streamed(ai, **fields(i)) for i in range(8)]
        assert sum(len(answer.calls) for answer in alone) >= 6
        running = [pool.submit(streamed, ai, **fields(i)) for i in range(8)]
        poisoned = [pool.submit(poison, i) for i in range(8)]
        assert [future.result() for future in running] == alone
        assert {future.result() for future in poisoned} == {400}
    invariant.stop()


# --- 6. What has failed in other servers ---------------------------------------------------------


@pytest.mark.slow
def test_long_arguments_come_whole(
    ai: openai.OpenAI, model: Path, ids_of: Callable[[str], int], hasty: dict[str, int]
) -> None:
    """Over 8 KiB, where a parser elsewhere has a limit."""
    words = (word for word in Tokenizer.load(model).vocabulary() if re.fullmatch(b"[ A-z]+", word))
    longest = max(words, key=len).decode()
    long_text = longest * (9000 // len(longest))
    fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 2500, "seed": 1}
    fields |= {"tools": [tool("look", one({"const": long_text}))], "tool_choice": named("look")}
    fields |= {"logit_bias": {**hasty, str(ids_of(longest)): 50}}
    answer = streamed(ai, **fields)
    assert answer.finish == "tool_calls"
    assert json.loads(answer.calls[0][2]) == {"value": long_text}


@pytest.mark.parametrize("place", ["user", "system", "result", "tool", "schema", "arguments"])
def test_markers_in_what_a_client_sends_are_text(
    http: httpx.Client, ids_of: Callable[[str], int], place: str
) -> None:
    """The prompt has as many special tokens as with harmless words."""
    special = {ids_of(marker) for marker in MARKERS if "think" not in marker}

    def prompt(text: str) -> list[int]:
        messages: list[Any] = [{"role": "system", "content": "s"}, *HELLO]
        messages += [*called("functions.look:0"), *HELLO]
        tools: list[Any] = [tool("look", one(WHOLE), description="A tool.")]
        if place == "user":
            messages[1] = {"role": "user", "content": text}
        elif place == "system":
            messages[0] = {"role": "system", "content": text}
        elif place == "result":
            messages[3] = {**messages[3], "content": text}
        elif place == "tool":
            tools[0]["function"]["description"] = text
        elif place == "schema":
            tools[0]["function"]["parameters"] = closed({text: {"enum": [text]}})
        else:
            function = {"name": "look", "arguments": json.dumps({"value": text})}
            messages[2]["tool_calls"][0]["function"] = function
        body = {"model": "tiny", "messages": messages, "tools": tools}
        return http.post("/tokenize", json=body).json()["tokens"]

    harmless, injected = prompt("harmless"), prompt("".join(MARKERS))
    assert len(injected) > len(harmless)
    assert [i for i in injected if i in special] == [i for i in harmless if i in special]


def test_ids_of_responses_answer_the_next_turn(http: httpx.Client, zeros: dict[str, int]) -> None:
    """The ids are those of the chat, so that what comes back is what was sampled."""
    function = {"type": "function", "name": "look", "parameters": one(WHOLE)}
    items: list[Any] = [{"role": "user", "content": "Hello."}]
    seen = []
    for _ in range(3):
        body = {"model": "tiny", "input": items, "tools": [function], "tool_choice": "required"}
        body |= {"parallel_tool_calls": False, "max_output_tokens": 60, "seed": 1}
        response = http.post("/v1/responses", json={**body, "logit_bias": zeros})
        assert response.status_code == 200, response.text
        (call,) = response.json()["output"]
        assert call["type"] == "function_call"
        assert complaint_of(call["arguments"], one(WHOLE)) is None
        seen.append(call["call_id"])
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
        items += [call, output]
    assert seen == [f"functions.look:{i}" for i in range(3)]


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


JUNK: list[Any] = [None, 0, -1, 1e308, True, "", "x", "\x00", [], [[]], {}, {"": None}]
JUNK += [{"type": []}, {"type": {"$ref": 1}}, {"$ref": 5}, {"enum": []}, {"enum": {}}, deep(300)]
JUNK += [{"properties": []}, {"required": "a"}, {"items": 3}, {"anyOf": {}}, {"anyOf": []}]
JUNK += [{"pattern": 3}, {"minimum": "a"}, {"$defs": 1}, {"additionalProperties": "no"}]
PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "tools": lambda junk: {"tools": junk},
    "tool": lambda junk: {"tools": [junk]},
    "function": lambda junk: {"tools": [{"type": "function", "function": junk}]},
    "parameters": lambda junk: {"tools": [tool("look", junk)]},
    "forced": lambda junk: {"tools": [tool("look", junk)], "tool_choice": "required"},
    "property": lambda junk: {"tools": [tool("look", one(junk))], "tool_choice": "required"},
    "strict": lambda junk: {"tools": [tool("look", {}, strict=junk)]},
    "tool_choice": lambda junk: {"tools": LOOK, "tool_choice": junk},
    "chosen": lambda junk: {"tools": LOOK, "tool_choice": {"type": "function", "function": junk}},
    "response_format": lambda junk: {"response_format": junk},
    "schema": lambda junk: {"response_format": formatted(junk)},
    "stream_options": lambda junk: {"stream": True, "stream_options": junk},
    "structured_outputs": lambda junk: {"structured_outputs": {"json": junk}},
    "messages": lambda junk: {"messages": junk},
    "message": lambda junk: {"messages": [junk]},
    "content": lambda junk: {"messages": [{"role": "user", "content": junk}]},
    "part": lambda junk: {"messages": [{"role": "user", "content": [junk]}]},
    "tool_calls": lambda junk: {"messages": [*HELLO, {"role": "assistant", "tool_calls": junk}]},
    "call": lambda junk: {"messages": [*HELLO, {"role": "assistant", "tool_calls": [junk]}]},
    "arguments": lambda junk: {
        "messages": [
            *HELLO,
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "a", "arguments": junk}}
                ],
            },
        ]
    },
    "tool_call_id": lambda junk: {
        "messages": [*HELLO, {"role": "tool", "tool_call_id": junk, "content": "x"}]
    },
    "logit_bias": lambda junk: {"logit_bias": junk},
}


def test_junk_is_answered_and_never_with_500(http: httpx.Client) -> None:
    """400 in OpenAI's shape, or an answer; whatever came, the server is there afterwards."""

    def check(case: tuple[str, Any]) -> str | None:
        place, junk = case
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 2, **PLACES[place](junk)}
        response = http.post("/v1/chat/completions", json=body)
        if response.status_code == 200:
            return None
        if response.status_code == 400 and response.json()["error"]["message"]:
            return None
        return f"{place}: {json.dumps(junk)[:60]}: {response.status_code} {response.text[:120]}"

    cases = [(place, junk) for place in PLACES for junk in JUNK]
    assert [found for found in at_once(check, cases) if found] == []
    assert http.get("/health").status_code == 200


def test_what_would_be_dropped_in_silence_is_refused(http: httpx.Client) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 2}
    for name, value in {"priority": 1, "guided_json": {}, "best_of": 2}.items():
        refused(http.post("/v1/chat/completions", json={**body, name: value}), name)
    long = [{"role": "user", "content": "too long " * 5000}]
    refused(http.post("/v1/chat/completions", json={**body, "messages": long}), "4096")


def test_the_corpus_is_made_of_valid_schemas() -> None:
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert len(SCHEMAS) >= 40
    assert len(set(EXOTIC_NAMES.values())) == len(EXOTIC_NAMES)
