"""A model on IFEval, and the constants that it is read against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from selenite import atomic
from selenite.eval.ask import AskOptions
from selenite.eval.ifeval.check import CHECKERS, check
from selenite.eval.ifeval.constants import CONSTANTS
from selenite.eval.ifeval.prompts import SHA256, Prompt
from selenite.eval.ifeval.relevance import own_words, relevance
from selenite.eval.ifeval.scores import VIEWS, Lift, Result
from selenite.eval.measure import Target, asked
from selenite.eval.question import Answer, Question, Suite, Verdict
from selenite.types import Message

VERSION = f"prompts {SHA256[:12]}, checkers of {CHECKERS.title}"


def bounds(prompts: Sequence[Prompt]) -> list[Result]:
    """The constants. Raises what ``check`` raises."""
    own = own_words(prompts)
    found = list[Result]()
    for name, text in CONSTANTS.items():
        replies = dict.fromkeys((prompt.id for prompt in prompts), text)
        found.append(Result(name, check(prompts, replies), relevance(own, replies)))
    return found


def suite(prompts: Sequence[Prompt]) -> Suite:
    """The prompts as questions: right is who follows all of one, strictly."""

    def judge(answers: Mapping[str, Answer]) -> dict[str, Verdict]:
        found = scored(prompts, "", answers).followed
        return {key: Verdict(all(each.strict)) for key, each in found.items()}

    questions = tuple(
        Question(prompt.id, "ifeval", (Message("user", prompt.text),), ()) for prompt in prompts
    )
    return Suite("ifeval", VERSION, questions, {}, judge)


def measure(
    prompts: Sequence[Prompt], target: Target, out: Path, concurrency: int, max_tokens: int
) -> Result:
    """The target's replies, checked. Raises what ``asked`` and ``check`` raise."""
    options = AskOptions("", target.fingerprint, max_tokens=max_tokens, concurrency=concurrency)
    ((own, answers),) = asked(suite(prompts), target, out, (None,), options)
    found = scored(prompts, target.title, answers)
    return Result(found.agent, found.followed, found.relevance, found.errors, own.decisive())


def scored(prompts: Sequence[Prompt], agent: str, answers: Mapping[str, Answer]) -> Result:
    """Verdicts on answers; a prompt that did not fit into the context has the empty reply."""
    replies = {key: answer.text for key, answer in answers.items() if not answer.error}
    checked = check(prompts, replies)
    return Result(
        agent, checked, relevance(own_words(prompts), replies), len(answers) - len(replies)
    )


def table(results: Sequence[Result]) -> Table:
    """For people."""
    shown = Table("", *(result.agent for result in results), title=f"ifeval {VERSION}")
    for view in VIEWS:
        shown.add_row(view, *(_cell(result, view) for result in results))
    shown.add_row("average of strict", *(f"{result.average:.3f}" for result in results))
    shown.add_section()
    shown.add_row("the prompt's own words", *(f"{result.relevance:.3f}" for result in results))
    shown.add_row("pipeline errors", *(str(result.errors) for result in results))
    return shown


def _cell(result: Result, view: str) -> str:
    share = f"{result.shares[view]:.3f}"
    if result.agent in CONSTANTS or view != VIEWS[0]:
        return share
    low, high = result.interval
    return f"{share} ({low:.3f}-{high:.3f})"


def write(
    path: Path, prompts: Sequence[Prompt], results: Sequence[Result], lift: Lift | None
) -> None:
    """All of it as JSON, in the form that ``selenite eval compare`` reads."""
    named = {prompt.id: prompt.instructions for prompt in prompts}
    record = {
        "suite": "ifeval",
        "version": VERSION,
        "lift": None if lift is None else vars(lift),
        "agents": {
            result.agent: {
                "protocol": dict(result.protocol),
                **{view: result.shares[view] for view in VIEWS},
                "average of strict": result.average,
                "the prompt's own words": result.relevance,
                "pipeline errors": result.errors,
                "right": sorted(key for key, right in result.right.items() if right),
                "wrong": {
                    key: _missed(named[key], result.followed[key].strict)
                    for key, ok in result.right.items()
                    if not ok
                },
            }
            for result in results
        },
    }
    atomic.write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _missed(instructions: Sequence[str], strict: Sequence[bool]) -> str:
    missed = [name for name, ok in zip(instructions, strict, strict=True) if not ok]
    return f"did not follow {', '.join(missed)}"
