"""Agents beside each other on one suite: shares with intervals, floors below, the ceiling above."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from selenite import atomic
from selenite.chat.schema import ToolSchemas
from selenite.errors import DataError
from selenite.eval.floors import FLOORS
from selenite.eval.question import Answer, Suite, Verdict
from selenite.eval.statistics import mcnemar, wilson
from selenite.types import ToolCall

CEILING = "gold"


@dataclass(frozen=True)
class Score:
    """Of one agent in one category."""

    right: int
    total: int  # answers with a verdict
    errors: int  # faults of the pipeline: no verdict
    calls: int  # that were made or meant
    valid: int  # of those: parsed, of a tool that was offered, and as its schema says

    @property
    def share(self) -> float:
        return self.right / self.total if self.total else 0.0

    def record(self) -> dict[str, Any]:
        low, high = wilson(self.right, self.total)
        return {**asdict(self), "share": self.share, "low": low, "high": high}


@dataclass(frozen=True)
class Result:
    """One agent on a suite."""

    agent: str
    scores: Mapping[str, Score]  # by category
    verdicts: Mapping[str, Verdict]  # by question
    protocol: Mapping[str, Any]  # how it was asked


def score(
    suite: Suite, agent: str, answers: Mapping[str, Answer], protocol: Mapping[str, Any]
) -> Result:
    """The verdicts on an agent's answers, added up. Raises ``DataError`` for a missing answer."""
    missing = [question.id for question in suite.questions if question.id not in answers]
    if missing:
        raise DataError(f"{agent}: no answer to {missing[0]} and {len(missing) - 1} others")
    verdicts = suite.judge(answers)
    scores = {name: _score(suite, name, answers, verdicts) for name in suite.categories}
    return Result(agent, scores, verdicts, protocol)


def bounds(suite: Suite) -> list[Result]:
    """The floors and the ceiling."""
    found = [
        score(suite, name, {q.id: agent(q) for q in suite.questions}, {})
        for name, agent in FLOORS.items()
    ]
    return [*found, score(suite, CEILING, suite.gold, {})]


def _score(
    suite: Suite, category: str, answers: Mapping[str, Answer], verdicts: Mapping[str, Verdict]
) -> Score:
    right = total = errors = calls = valid = 0
    for question in suite.questions:
        if question.category != category:
            continue
        answer = answers[question.id]
        if answer.error:
            errors += 1
            continue
        total += 1
        right += verdicts[question.id].is_right
        calls += len(answer.calls) + answer.malformed
        called = {call.name for call in answer.calls}
        schemas = ToolSchemas([tool for tool in question.tools if tool.name in called])
        for call in answer.calls:
            made = ToolCall(call.name, json.dumps(call.arguments), "")
            valid += call.arguments is not None and schemas.check(made).valid
    return Score(right, total, errors, calls, valid)


def table(suite: Suite, results: Sequence[Result]) -> Table:
    """For people."""
    shown = Table(
        "category",
        "n",
        *(result.agent for result in results),
        title=suite.name + " " + suite.version,
    )
    for name in suite.categories:
        scores = [result.scores[name] for result in results]
        cells = [_cell(each, result.agent) for each, result in zip(scores, results, strict=True)]
        shown.add_row(name, str(max(each.total + each.errors for each in scores)), *cells)
    valid = [
        (sum(s.valid for s in r.scores.values()), sum(s.calls for s in r.scores.values()))
        for r in results
    ]
    shown.add_section()
    texts = [f"{ok / made:.3f} of {made}" if made else "none" for ok, made in valid]
    shown.add_row("valid calls", "", *texts)
    errors = [sum(s.errors for s in r.scores.values()) for r in results]
    shown.add_row("pipeline errors", "", *map(str, errors))
    return shown


def _cell(found: Score, agent: str) -> str:
    if agent in FLOORS or agent == CEILING:
        return f"{found.share:.3f}"
    low, high = wilson(found.right, found.total)
    return f"{found.share:.3f} ({low:.3f}-{high:.3f})"


def read_verdicts(path: Path, agent: str | None = None) -> tuple[str, dict[str, bool]]:
    """An agent's name and what it had right, out of a file that ``write`` wrote.

    None: the one that is neither a floor nor the ceiling; of several, the first. Raises
    ``DataError`` for another file, and where there is no such agent.
    """
    try:
        agents = json.loads(path.read_text(encoding="utf-8"))["agents"]
        names = [n for n in agents if n not in (*FLOORS, CEILING)] if agent is None else [agent]
        found = agents[names[0]]
        verdicts = {**dict.fromkeys(found["wrong"], False), **dict.fromkeys(found["right"], True)}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"{path}: no result of {agent or 'a model'} in it ({error!r}); give a file that "
            "selenite eval wrote"
        ) from error
    return names[0], verdicts


def compare(first: Mapping[str, bool], second: Mapping[str, bool]) -> tuple[int, int, int, float]:
    """Of two agents: questions that both have a verdict on, those that only the first and only
    the second has right, and McNemar's probability."""
    both = sorted(first.keys() & second.keys())
    one, other = [first[name] for name in both], [second[name] for name in both]
    only_first = sum(a and not b for a, b in zip(one, other, strict=True))
    only_second = sum(b and not a for a, b in zip(one, other, strict=True))
    return len(both), only_first, only_second, mcnemar(one, other)


def write(path: Path, suite: Suite, results: Sequence[Result]) -> None:
    """All of it as JSON: how it was asked, shares with intervals, and what was wrong in each."""
    record = {
        "suite": suite.name,
        "version": suite.version,
        "agents": {
            result.agent: {
                "protocol": dict(result.protocol),
                "categories": {name: s.record() for name, s in result.scores.items()},
                "right": sorted(
                    name for name, verdict in result.verdicts.items() if verdict.is_right
                ),
                "wrong": {
                    name: verdict.reason
                    for name, verdict in result.verdicts.items()
                    if not verdict.is_right
                },
            }
            for result in results
        },
    }
    atomic.write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
