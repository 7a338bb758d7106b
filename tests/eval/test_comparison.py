"""Are calls the wanted ones: rules one by one, and matching against every permutation."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.eval.comparison import accepts, is_wanted, same_calls
from selenite.eval.question import Call


@pytest.mark.parametrize(
    ("value", "option", "is_same"),
    [
        ("New York, NY", "new york NY", True),
        ("a-b_c", "abc", True),
        ("Rome", "Roma", False),
        (3, 3.0, True),
        (3.0, 3, True),
        (3, "3", False),
        ("3", 3, False),
        (True, 1, False),
        (1, True, False),
        (False, 0, False),
        (True, True, True),
        ([1, 2], [1, 2], True),
        ([2, 1], [1, 2], False),
        (["A"], ["a"], True),
        ([1], 1, False),
        ({"a": 1}, {"a": [1, 2]}, True),
        ({"a": 3}, {"a": [1, 2]}, False),
        ({}, {"a": [1, ""]}, True),
        ({}, {"a": [1]}, False),
        ({"b": 1}, {"a": [1, ""]}, False),
        (None, None, True),
        (None, "", False),
    ],
)
def test_values(value: Any, option: Any, is_same: bool) -> None:
    assert accepts(value, [option]) is is_same


def test_arguments_may_be_left_out_only_where_that_is_said() -> None:
    wanted = ("f", {"city": ["Rome"], "unit": ["C", ""]})
    assert is_wanted(Call("f", {"city": "rome"}), wanted)
    assert is_wanted(Call("f", {"city": "rome", "unit": "c"}), wanted)
    assert not is_wanted(Call("f", {"unit": "C"}), wanted)
    assert not is_wanted(Call("f", {"city": "Rome", "more": 1}), wanted)
    assert not is_wanted(Call("g", {"city": "Rome"}), wanted)
    assert not is_wanted(Call("f", None), wanted)


@given(
    st.lists(st.sets(st.integers(0, 3), max_size=4), min_size=1, max_size=4),
    st.permutations([0, 1, 2, 3]),
)
@settings(max_examples=300, deadline=None)
def test_a_match_is_found_where_some_order_fits(accepted: list[set[int]], order: list[int]) -> None:
    calls = [Call("f", {"x": value}) for value in order[: len(accepted)]]
    wanted = [("f", {"x": sorted(values)}) for values in accepted]
    by_hand = any(
        all(is_wanted(call, one) for call, one in zip(chosen, wanted, strict=True))
        for chosen in permutations(calls)
    )
    assert same_calls(calls, wanted) is by_hand


def test_a_call_too_many_is_wrong() -> None:
    call = Call("f", {"x": 1})
    assert not same_calls([call, call], [("f", {"x": [1]})])
    assert not same_calls([], [("f", {"x": [1]})])
    assert same_calls([], [])
