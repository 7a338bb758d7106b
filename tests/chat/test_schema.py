"""Arguments against a tool's schema: typed faults, and schemas of strangers that do no harm."""

from __future__ import annotations

import sys

import pytest

from selenite.chat.schema import CallCheck, CallFault, ToolSchemas, schema_accuracy
from selenite.errors import ConversationError, MissingExtraError
from selenite.types import ToolCall, ToolSpec

CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "days": {"type": "array", "items": {"$ref": "#/$defs/day"}},
        "n": {"type": "integer", "maximum": 3},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"day": {"enum": ["mon", "tue"]}},
}


def check(schema, arguments: str, name: str = "f") -> CallCheck:
    return ToolSchemas([ToolSpec("f", "", schema)]).check(
        ToolCall(name, arguments, "functions.f:0")
    )


@pytest.mark.parametrize(
    ("arguments", "fault", "path"),
    [
        ('{"city": "Rome", "days": ["mon"], "n": 3}', None, ""),
        ('{"city": "Rome", "days": ["mon", "sun"]}', CallFault.SCHEMA_VIOLATION, "$.days[1]"),
        ('{"city": "", "n": 4}', CallFault.SCHEMA_VIOLATION, "$.city"),
        ("{}", CallFault.SCHEMA_VIOLATION, "$"),
        ('{"city": "Rome", "\\ud800": 1}', CallFault.SCHEMA_VIOLATION, "$"),
        ("[]", CallFault.NOT_AN_OBJECT, "$"),
        ("", CallFault.NOT_JSON, ""),
        ('{"city": NaN}', CallFault.NOT_JSON, ""),
        ('{"n": ' + "1" * 5000 + "}", CallFault.NOT_JSON, ""),
        ("[" * 100_000, CallFault.NOT_JSON, ""),
    ],
)
def test_faults(arguments, fault, path):
    found = check(CITY, arguments)
    assert (found.fault, found.path) == (fault, path)
    assert found.valid == (fault is None)
    assert bool(found.detail) == (fault is not None)
    found.detail.encode()  # whatever the arguments spell


def test_a_tool_that_was_not_offered():
    found = check(CITY, "{}", name="g")
    assert found == CallCheck(CallFault.UNKNOWN_TOOL, "", "no tool 'g'; there are: 'f'")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/none"},
        {"properties": {"a": {"pattern": "["}}},
        {"properties": {"a": {"pattern": "\\p{L}"}}},
        {"properties": {"b": {"multipleOf": 0.5}}},
    ],
)
def test_schemas_that_cannot_be_followed_are_no_fault_of_the_call(schema):
    arguments = '{"a": "x", "b": 1' + "0" * 400 + "}"
    assert check(schema, arguments).fault is CallFault.UNCHECKABLE


@pytest.mark.parametrize("address", ["http://localhost:1/x", "ftp://localhost:1/x"])
def test_references_to_other_documents_are_not_followed(address, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_: pytest.fail("a schema was fetched"))
    assert check({"$ref": address}, "{}").fault is CallFault.UNCHECKABLE


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"properties": []}, {"$schema": {}}, {"required": "city"}]
)
def test_what_is_no_schema_is_refused(schema):
    with pytest.raises(ConversationError, match="the parameters of the tool 'f'"):
        check(schema, "{}")


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ConversationError, match="two tools are named 'f'"):
        ToolSchemas([ToolSpec("f", "", {}), ToolSpec("f", "", {})])


def test_accuracy_is_the_share_of_valid_calls():
    checks = [check(CITY, text) for text in ('{"city": "Rome"}', "{}", "[", '{"city": "Oslo"}')]
    assert schema_accuracy(checks) == 0.5
    assert schema_accuracy([]) is None


def test_without_jsonschema_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'selenite\[serve\]'"):
        ToolSchemas([])
