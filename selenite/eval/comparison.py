"""Are calls the ones that were wanted? A typed comparison with lists of acceptable values.

    wanted   {"name": {"city": ["Rome", "Roma"], "unit": ["C", ""]}}     "": may be left out
    called   name {"city": "rome"}                                       right

Texts are compared without case, spaces and the punctuation ``,./-_*^``; numbers by value, and a
whole number is an integer however it is written; a boolean is no number; lists in order; tables
field by field. Calls may come in any order, and each wanted one needs a call of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selenite.eval.question import Call

OMITTED = ""
Wanted = tuple[str, Mapping[str, Sequence[Any]]]  # a name, and acceptable values by parameter


def same_calls(calls: Sequence[Call], wanted: Sequence[Wanted]) -> bool:
    """Whether there is a one-to-one match of calls and what is wanted."""
    if len(calls) != len(wanted):
        return False
    fits = [[is_wanted(call, one) for call in calls] for one in wanted]
    return _has_matching(fits)


def is_wanted(call: Call, wanted: Wanted) -> bool:
    """Whether one call is what is wanted."""
    name, acceptable = wanted
    if call.name != name or call.arguments is None:
        return False
    return _fields(call.arguments, acceptable)


def accepts(value: Any, options: Sequence[Any]) -> bool:
    """Whether a value is one of the acceptable ones."""
    return any(_same(value, option) for option in options)


def _fields(given: Mapping[str, Any], acceptable: Mapping[str, Any]) -> bool:
    options = {
        name: value if isinstance(value, list) else [value] for name, value in acceptable.items()
    }
    if not given.keys() <= options.keys():
        return False
    return all(
        accepts(given[name], values) if name in given else OMITTED in values
        for name, values in options.items()
    )


def _same(value: Any, option: Any) -> bool:
    match value, option:
        case bool(), _:
            return value is option
        case _, bool():
            return False
        case int() | float(), int() | float():
            return value == option
        case str(), str():
            return _bare(value) == _bare(option)
        case list(), list():
            return len(value) == len(option) and all(map(_same, value, option))
        case dict(), dict():
            return _fields(value, option)
    return value is None and option is None


def _bare(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


def _has_matching(fits: Sequence[Sequence[bool]]) -> bool:
    """Whether every row has a column of its own (Kuhn's augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, is_fit in enumerate(fits[row]):
            if not is_fit or column in seen:
                continue
            seen.add(column)
            if column not in owner or place(owner[column], seen):
                owner[column] = row
                return True
        return False

    return all(place(row, set()) for row in range(len(fits)))
