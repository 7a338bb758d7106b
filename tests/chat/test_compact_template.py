"""Short declarations of tools: everything that decides a call is in them, in both families."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import Environment

from selenite.chat.profile import K2, detect_profile
from selenite.chat.supervision import supervise
from selenite.chat.template import compact_template, k2_template, render
from selenite.chat.template_check import check_template
from selenite.chat.tokenizer import Tokenizer
from selenite.types import Message, ToolCall, ToolSpec

CALL = ToolCall("book", '{"city": "Rome"}', "functions.book:0")
TALK = (
    Message("system", "Be brief."),
    Message("user", "Book Rome."),
    Message("assistant", tool_calls=(CALL,)),
    Message("tool", '{"ok": true}', tool_call_id=CALL.id),
    Message("assistant", "Done."),
)


def declared(schema: dict[str, Any], is_k2: bool = False) -> str:
    tool = ToolSpec("book", "Books a trip.", schema)
    text = render(compact_template(is_k2), TALK[1:2], [tool])
    begin = text.index("book(")
    return text[begin : text.index("<|im_end|>" if is_k2 else "\n\nCall tools", begin)]


def objects(required: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required or []}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "book(): Books a trip."),
        (objects(), "book(): Books a trip."),
        (
            objects(["city"], city={"type": "string", "description": "Where to."}),
            "book(city: string): Books a trip.\n  city: Where to.",
        ),
        (
            objects(unit={"type": "string", "enum": ["C", "F"], "default": "C"}),
            'book(unit?: "C" | "F" = "C"): Books a trip.',
        ),
        (
            objects(["days"], days={"type": "array", "items": {"type": "integer"}}),
            "book(days: integer[]): Books a trip.",
        ),
        (
            objects(kinds={"type": "array", "items": {"enum": ["a", "b"]}}),
            'book(kinds?: ("a" | "b")[]): Books a trip.',
        ),
        (
            objects(
                ["who"], who=objects(["age"], age={"type": "integer", "description": "Years."})
            ),
            "book(who: {age: integer}): Books a trip.\n  who.age: Years.",
        ),
        (
            objects(["id"], id={"type": "string", "pattern": "^BHV-[0-9]{4}$"}),
            "book(id: string /^BHV-[0-9]{4}$/): Books a trip.",
        ),
        (
            objects(day={"type": "string", "format": "date"}),
            "book(day?: string (date)): Books a trip.",
        ),
        (
            objects(x={"anyOf": [{"type": "string"}, {"type": "null"}]}),
            "book(x?: string | null): Books a trip.",
        ),
        (objects(x={"type": ["string", "null"]}), "book(x?: string | null): Books a trip."),
        (objects(x={}), "book(x?: any): Books a trip."),
        (objects(x={"const": 3}), "book(x?: 3): Books a trip."),
        (
            objects(x={"type": ["array", "null"], "items": {"enum": [1, 2]}}),
            "book(x?: (1 | 2)[] | null): Books a trip.",
        ),
        (
            objects(x={"type": "object", "additionalProperties": {"type": "number"}}),
            "book(x?: {[string]: number}): Books a trip.",
        ),
        (
            {**objects(x={"$ref": "#/$defs/P"}), "$defs": {"P": {"type": "null"}}},
            'book(x?: {"$ref": "#/$defs/P"}): Books a trip.\n  where: {"P": {"type": "null"}}',
        ),
        (
            objects(x={"type": "array", "items": {"type": "string", "description": "One."}}),
            "book(x?: string[]): Books a trip.\n  x[]: One.",
        ),
        (
            objects(x={"type": "boolean", "default": False}),
            "book(x?: boolean = false): Books a trip.",
        ),
        (
            objects(
                x={"type": "array", "items": objects(y={"type": "number", "description": "Y."})}
            ),
            "book(x?: {y?: number}[]): Books a trip.\n  x[].y: Y.",
        ),
    ],
)
def test_a_declaration_says_what_the_schema_says(schema: dict[str, Any], expected: str) -> None:
    assert declared(schema) == expected
    assert declared(schema, is_k2=True) == expected


def test_without_tools_k2_is_k2() -> None:
    assert render(compact_template(True), TALK) == render(k2_template(), TALK)


def test_conversations_only_grow_and_the_loss_is_on_the_assistant() -> None:
    """In the family that has special tokens for calls; of the other, SmolLM2's tests see to it."""
    tokenizer = Tokenizer.train(["Book Rome. Be brief. Done."] * 20, 400)
    tokenizer.chat_template = compact_template(True)
    assert detect_profile(tokenizer)[0] is K2
    check_template(tokenizer, K2)
    tool = ToolSpec("book", "Books a trip.", objects(["city"], city={"type": "string"}))
    found = supervise(tokenizer, TALK, [tool])
    learnt = [i for i, is_on in zip(found.ids, found.is_trained, strict=True) if is_on]
    assert tokenizer.decode(learnt) == (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.book:0"
        '<|tool_call_argument_begin|>{"city": "Rome"}<|tool_call_end|>'
        "<|tool_calls_section_end|><|im_end|>Done.<|im_end|>"
    )


def test_chatml_is_known_by_its_calls() -> None:
    text = render(compact_template(False), TALK, [ToolSpec("book", "Books.", {})])
    assert text.count("<|im_end|>") == len(TALK)
    assert '<tool_call>\n{"name": "book", "arguments": {"city": "Rome"}}\n</tool_call>' in text
    assert '<tool_response>\n{"ok": true}\n</tool_response>' in text
    table = {"role": "assistant", "content": None}
    table["tool_calls"] = [{"function": {"name": "book", "arguments": {"city": "Rome"}}}]
    source = compact_template(False)
    other = Environment(extensions=["jinja2.ext.loopcontrols"]).from_string(source)
    written = other.render(messages=[{"role": "user", "content": "Go."}, table])
    assert (
        '<|im_start|>assistant\n<tool_call>\n{"name": "book", "arguments": {"city": "Rome"}}'
        in written
    )
    assert "None" not in written
