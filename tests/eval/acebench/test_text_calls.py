"""Calls as text: what Python reads the same, and nothing that is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.eval.acebench.text_calls import read_text_calls
from selenite.eval.question import Call

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.from_regex(r"[a-z][a-z_0-9]{0,8}x", fullmatch=True)  # no keyword ends like this


@given(st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), max_size=3))
@settings(max_examples=60, deadline=None)
def test_what_is_written_as_python_is_read_again(calls: list[tuple[str, dict[str, Any]]]) -> None:
    texts = [f"{n}({', '.join(f'{k}={v!r}' for k, v in a.items())})" for n, a in calls]
    expected = tuple(Call(name, arguments) for name, arguments in calls)
    if "inf" not in "".join(texts):  # repr of infinity is no literal
        assert read_text_calls(f"\n [{', '.join(texts)}] ") == expected


def test_constants_of_json_and_dotted_names() -> None:
    text = "[shop.cart_add(item={'gift': true, 'note': null, 'size': (1, -2.5)}, now=false)]"
    arguments = {"item": {"gift": True, "note": None, "size": [1, -2.5]}, "now": False}
    assert read_text_calls(text) == (Call("shop.cart_add", arguments),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        "f(x=1)",
        "[f(1)]",
        "[f(**{'x': 1})]",
        "[f(x=1), g]",
        "[f(x=y)]",
        "[f(x={1: 2})]",
        "[f(x={**{}})]",
        "[f(x={[1]})]",
        "[f(x=1j)]",
        "[f(x=b'a')]",
        "[f(x=1, x=2)]",
        "[f()(x=1)]",
        "[f(x=1)] and more",
        "[f(x=" + "[" * 5000 + "]" * 5000 + ")]",
        "[f(x=\0)]",
    ],
)
def test_anything_else_is_no_call(text: str) -> None:
    assert read_text_calls(text) == ()


def test_nothing_is_run(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    for attack in (
        f"[f(x=open({str(target)!r}, 'w'))]",
        f"[f(x=__import__('pathlib').Path({str(target)!r}).touch())]",
        "[exit(code=1)]",
        f"[open(file={str(target)!r}, mode='w')]",
    ):
        for call in read_text_calls(attack):
            assert call.name in ("exit", "open")  # names, like any other
    assert not target.exists()
