"""ACEBench as a suite: ``selenite eval acebench``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from selenite.errors import ConfigError
from selenite.eval.acebench.files import AGENT_CATEGORIES, CATEGORIES, FILES
from selenite.eval.acebench.judge import gold, judge
from selenite.eval.acebench.questions import Form, read_items
from selenite.eval.pinned import located
from selenite.eval.question import Suite


def acebench(
    categories: Sequence[str] = (),
    limit: int | None = None,
    data: Path | None = None,
    form: Form = "tools",
) -> Suite:
    """The suite of some categories (none: all), at most ``limit`` questions of each, the first.

    Raises ``ConfigError`` for a category that there is not or that needs more than a question, and
    what ``located`` raises.
    """
    for name in categories:
        if name in AGENT_CATEGORIES:
            raise ConfigError(
                f"category {name!r}: needs the benchmark's own simulators, which run what a model "
                "writes as code, and for several turns a model as the user; not offered here. "
                "selenite eval worlds has episodes of several steps and turns"
            )
        if name not in CATEGORIES:
            raise ConfigError(f"category {name!r}: must be one of {', '.join(CATEGORIES)}")
    folder = located(FILES, data)
    items = [
        item for name in categories or CATEGORIES for item in read_items(folder, name, form)[:limit]
    ]
    return Suite(
        "acebench",
        f"{FILES.title}, English, {form}",
        tuple(item.question for item in items),
        {item.question.id: gold(item) for item in items},
        lambda answers: judge([item for item in items if item.question.id in answers], answers),
    )


def groups(shares: Mapping[str, float]) -> dict[str, float]:
    """The benchmark's means over categories, of the groups that are whole.

    Its overall score adds the agent group, and is not given here.
    """
    found = dict[str, float]()
    for group in ("normal", "special"):
        names = [name for name in CATEGORIES if name.startswith(group)]
        if all(name in shares for name in names):
            found[group] = sum(shares[name] for name in names) / len(names)
    return found
