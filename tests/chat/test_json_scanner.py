"""The JSON scanner against the standard library's reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.chat.json_scanner import JsonScanner

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)
alphabet = '{}[]:,"\\ \n\tabtrue0123.eE+-nulfs\x01é/u'


def refuse(name: str) -> None:
    raise ValueError(name)


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=refuse), dict)
    except ValueError:
        return False


def scan(pieces) -> tuple[JsonScanner, str]:
    """The scanner after the pieces, and what it left of them."""
    scanner, left = JsonScanner(), ""
    for piece in pieces:
        left += piece
        while left and (taken := scanner.feed(left)):
            left = left[taken:]
    return scanner, left


@given(value=objects, ascii=st.booleans(), indent=st.none() | st.just(1), data=st.data())
@settings(max_examples=200, deadline=None)
def test_an_object_is_taken_whole_and_its_members_are_found(value, ascii, indent, data):
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    place = data.draw(st.integers(0, len(text)))
    for pieces in ([text + "}"], [text[:place], text[place:] + "}"], [*text, "}"]):
        scanner, left = scan(pieces)
        assert scanner.complete
        assert (scanner.text, left) == (text, "}")
        found = {scanner.key(m): json.loads(text[m.start : m.end]) for m in scanner.members}
        assert found == value
    for end in range(len(text)):
        scanner, left = scan([text[:end]])
        assert (scanner.complete, scanner.fault, left) == (False, None, "")


@given(text=st.text(alphabet, max_size=30).map(lambda text: "{" + text))
@settings(max_examples=500, deadline=None)
def test_it_takes_what_the_library_takes(text):
    scanner, left = scan([text])
    assert scanner.complete == is_object(scanner.text)
    if is_object(text.strip()):
        assert scanner.complete
        assert not left.strip()
    assert scan(text)[0].text == scanner.text  # one character at a time


@given(value=objects, place=st.integers(0, 1000), junk=st.sampled_from(alphabet))
@settings(max_examples=500, deadline=None)
def test_one_wrong_character_is_judged_as_the_library_judges(value, place, junk):
    text = json.dumps(value)
    place %= len(text)
    text = text[:place] + junk + text[place + 1 :]
    scanner, left = scan([text])
    assert (scanner.complete and not left.strip(" \n\t")) == is_object(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[1]", "'[' at character 0, where an object is expected"),
        ('{"a" 1}', "'1' at character 5, where ':' is expected"),
        ('{"a": NaN}', "'N' at character 6, where a value is expected"),
        ('{"a": 01}', "'1' at character 7, where ',' or '}' is expected"),
        ('{"a": 1,}', "'}' at character 8, where a key is expected"),
        ('{"a": "\n"}', "'\\n' at character 7, where an escape in place of a control character"),
    ],
)
def test_a_fault_says_what_and_where(text, fault):
    scanner, left = scan([text])
    assert scanner.fault is not None
    assert scanner.fault.startswith(fault)
    assert left
