"""What of a schema an object can be: nothing that the schema itself refuses."""

from __future__ import annotations

import itertools
from typing import Any

import jsonschema
import pytest

from selenite.errors import ConfigError
from selenite.serve.object_schema import object_schema

WHOLE = {"type": "integer"}
A = {"type": "object", "properties": {"a": WHOLE}, "required": ["a"]}
B = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}
CLOSED_A = {**A, "additionalProperties": False}
VALUES: list[Any] = [None, 5, [], "a"]
VALUES += [
    dict(pairs)
    for count in range(4)
    for pairs in itertools.combinations(
        [("a", 1), ("b", True), ("c", 1), ("a", "x"), ("next", {}), ("next", {"a": 1})], count
    )
]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"description": "anything"},
        A,
        {"properties": {"a": WHOLE}},
        {**A, "required": ["a", "b"]},
        {**A, "required": ["b"], "additionalProperties": {"type": "boolean"}},
        {"type": ["null", "object"], "properties": {"a": WHOLE}},
        {"anyOf": [A, B]},
        {"anyOf": [A, WHOLE, True]},
        {"oneOf": [CLOSED_A, {"type": "null"}]},
        {**A, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]},
        {"allOf": [A, B]},
        {"allOf": [A, {"anyOf": [B, {"required": ["c"]}]}]},
        {"allOf": [CLOSED_A, {"properties": {"b": WHOLE}}]},
        {"$ref": "#/$defs/a", "$defs": {"a": A}},
        {"$ref": "#/$defs/a~1b", "required": ["b"], "$defs": {"a/b": A}},
        {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": A, "b": B}},
        {"$ref": "#/$defs/n", "$defs": {"n": {**A, "properties": {"next": {"$ref": "#/$defs/n"}}}}},
        {"enum": [1, {"a": 1}, {"b": True}]},
        {"allOf": [{"enum": [{"a": 1}, {"c": 1}]}, {"enum": [{"c": 1}]}]},
        {"const": {"a": 1}},
    ],
)
def test_what_is_of_the_narrowed_schema_is_an_object_of_the_schema(schema: dict[str, Any]):
    narrowed = object_schema(schema)
    jsonschema.Draft202012Validator.check_schema(narrowed)
    of_it = [v for v in VALUES if jsonschema.Draft202012Validator(narrowed).is_valid(v)]
    assert of_it
    assert all(isinstance(value, dict) for value in of_it)
    before = jsonschema.Draft202012Validator(schema)
    assert [value for value in of_it if not before.is_valid(value)] == []
    objects = [v for v in VALUES if isinstance(v, dict) and before.is_valid(v)]
    assert objects == of_it


def test_a_plain_object_is_left_as_it_is():
    schema = {"$schema": "x", **A, "$defs": {"a": A}, "not": {"required": ["c"]}}
    assert object_schema(schema) == schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array"}, "type='array'"),
        ({"type": ["string", "null"]}, "no object"),
        ({"anyOf": [WHOLE, {"type": "null"}]}, "no object"),
        ({"enum": [1, 2]}, "no object"),
        ({"const": []}, "no object"),
        ({"enum": 3}, "no object"),
        ({**CLOSED_A, "required": ["b"]}, "no object"),
        ({"allOf": [CLOSED_A, B]}, "no object"),
        ({"$ref": "#"}, "leads to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "itself"),
        ({"$ref": "#/nowhere"}, "leads nowhere"),
        ({"$ref": "https://example.invalid"}, "into the schema itself"),
        ({"$ref": {}}, "into the schema itself"),
        ({"anyOf": {}}, "anyOf"),
        ({"properties": []}, "properties"),
        ({"required": "a"}, "required"),
        ({"required": [[]]}, "required"),
        ({"allOf": [{"anyOf": [A, B, {}]}] * 5}, "alternatives"),
    ],
)
def test_what_no_object_can_be_is_refused(schema: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        object_schema(schema)


def test_depth_ends_in_an_error():
    schema: dict[str, Any] = A
    for _ in range(3000):
        schema = {"allOf": [schema]}
    with pytest.raises(ConfigError, match="too deep"):
        object_schema(schema)
