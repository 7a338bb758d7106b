"""BFCL as a suite: ``selenite eval bfcl``."""

from __future__ import annotations

from collections.abc import Sequence

from selenite.errors import ConfigError
from selenite.eval.bfcl.questions import CATEGORIES, WHEEL, gold, read_items
from selenite.eval.bfcl.score import judge
from selenite.eval.question import Suite
from selenite.eval.wheels import unpacked


def bfcl(categories: Sequence[str] = (), limit: int | None = None) -> Suite:
    """The suite of some categories (none: all), at most ``limit`` questions of each, the first.

    Raises ``ConfigError`` for a category that there is not, and what ``unpacked`` raises.
    """
    unknown = [name for name in categories if name not in CATEGORIES]
    if unknown:
        raise ConfigError(f"category {unknown[0]!r}: must be one of {', '.join(CATEGORIES)}")
    folder = unpacked(WHEEL)
    items = [item for name in categories or CATEGORIES for item in read_items(folder, name)[:limit]]
    return Suite(
        "bfcl",
        WHEEL.title,
        tuple(item.question for item in items),
        {item.question.id: gold(item) for item in items},
        lambda answers: judge(
            [item for item in items if item.question.id in answers], answers, folder
        ),
    )
