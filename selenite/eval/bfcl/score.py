"""Verdicts on answers to BFCL, and the scores that its leaderboard makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from selenite.agent.sandbox.limits import Limits
from selenite.agent.sandbox.sandbox import Sandbox
from selenite.errors import DataError
from selenite.eval.bfcl.questions import Item
from selenite.eval.question import TOO_LONG, Answer, Verdict

_CHUNK = 500  # items of one run in the sandbox


def judge(items: Sequence[Item], answers: Mapping[str, Answer], folder: Path) -> dict[str, Verdict]:
    """The official verdict on each answer, by id; faults of the pipeline have none.

    Relevance and irrelevance are whether anything was called. All else is decided by the wheel's
    own checker in the sandbox. Raises ``UnsupportedError`` where there can be none, ``DataError``
    where the checker fails.
    """
    verdicts = dict[str, Verdict]()
    lines = list[str]()
    for item in items:
        question = item.question
        answer = answers[question.id]
        if answer.error:
            continue
        if answer.too_long:
            verdicts[question.id] = Verdict(False, TOO_LONG)
        elif "relevance" in question.category:  # irrelevance, too
            has_called = bool(answer.calls)
            is_due = "irrelevance" not in question.category
            reason = "" if has_called == is_due else f"called: {has_called}"
            verdicts[question.id] = Verdict(has_called == is_due, reason)
        elif not answer.calls:
            verdicts[question.id] = Verdict(False, "no call")
        elif any(call.arguments is None for call in answer.calls):
            verdicts[question.id] = Verdict(False, "arguments are no JSON object")
        else:
            lines.append(json.dumps(_line(item, answer)))
    for start in range(0, len(lines), _CHUNK):
        for entry in _checked(lines[start : start + _CHUNK], folder):
            verdicts[entry["id"]] = Verdict(entry["valid"], entry["error"])
    return verdicts


def _line(item: Item, answer: Answer) -> dict[str, Any]:
    return {
        "id": item.question.id,
        "functions": item.functions,
        "calls": [{call.name: call.arguments} for call in answer.calls],
        "acceptable": item.acceptable,
        "category": item.question.category,
    }


def _checked(lines: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    script = files("selenite.eval.bfcl").joinpath("official.py").read_text(encoding="utf-8")
    limits = Limits(seconds=300, cpu_seconds=300, output_bytes=1 << 24)
    outcome = Sandbox(limits, readable=[folder]).run(
        ["python3", "check.py", str(folder)], {"check.py": script}, stdin="\n".join(lines) + "\n"
    )
    if not outcome.is_ok:
        raise DataError(
            f"BFCL's checker ended with {outcome.exit_code}: {outcome.stderr_text[-600:]}"
        )
    found = [json.loads(line) for line in outcome.stdout_text.splitlines()]
    if len(found) != len(lines):
        raise DataError(f"BFCL's checker judged {len(found)} of {len(lines)} answers")
    return found


LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")


def leaderboard(scores: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """Scores as the leaderboard adds them up, where all of their parts are there.

    Args:
        scores: share of right answers by category.
        counts: items by category.

    Non-live AST is the mean of simple (itself the mean of its languages), multiple, parallel and
    parallel_multiple; live AST is weighted by items; irrelevance is the mean of both.
    """
    found = dict[str, float]()
    languages = ["simple_python", "simple_java", "simple_javascript"]
    if all(name in scores for name in (*languages, "multiple", "parallel", "parallel_multiple")):
        simple = sum(scores[name] for name in languages) / 3
        others = [scores[name] for name in ("multiple", "parallel", "parallel_multiple")]
        found["non_live_ast"] = (simple + sum(others)) / 4
    if all(name in scores for name in LIVE):
        total = sum(counts[name] for name in LIVE)
        found["live_ast"] = sum(scores[name] * counts[name] for name in LIVE) / total
    if "irrelevance" in scores and "live_irrelevance" in scores:
        found["irrelevance"] = (scores["irrelevance"] + scores["live_irrelevance"]) / 2
    return found
