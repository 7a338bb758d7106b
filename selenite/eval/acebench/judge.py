"""Verdicts on answers to ACEBench.

Where calls are due: our typed comparison, with one of the alternatives. Where none is: nothing may
be called, and the reply must say what is wrong, in whatever words: the name of each parameter that
is missing, or each wrong value and that it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from selenite.eval.acebench.questions import Item, tool_name
from selenite.eval.acebench.text_calls import read_text_calls
from selenite.eval.comparison import same_calls
from selenite.eval.question import TOO_LONG, Answer, Call, Verdict

_FAULT = re.compile(
    r"incorrect|invalid|wrong|error|mismatch|unsupported|unknown|n't|\b(?:not|no|must|should)\b",
    re.IGNORECASE,
)


def judge(items: Sequence[Item], answers: Mapping[str, Answer]) -> dict[str, Verdict]:
    """The verdict on each answer, by id; faults of the pipeline have none."""
    return {
        item.question.id: _verdict(item, answers[item.question.id])
        for item in items
        if not answers[item.question.id].error
    }


def gold(item: Item) -> Answer:
    """What is right. Where no call is due, in words that are not the benchmark's."""
    match item.question.category:
        case "special_incomplete":
            named = [name for names in item.truth.values() for name in names]
            return Answer(f"What is missing is {', '.join(name.strip() for name in named)}.")
        case "special_error_param":
            wrong = [f"{v} is not valid as {k}" for k, values in item.truth.items() for v in values]
            return Answer("; ".join(wrong))
        case "special_irrelevant":
            return Answer("None of the functions can do that.")
    return Answer(calls=item.due)


def _verdict(item: Item, answer: Answer) -> Verdict:
    if answer.too_long:
        return Verdict(False, TOO_LONG)
    if answer.malformed:
        return Verdict(False, f"{answer.malformed} malformed calls")
    calls = answer.calls
    if not calls and (item.is_special or not item.question.tools):
        calls = tuple(
            Call(tool_name(call.name), call.arguments) for call in read_text_calls(answer.text)
        )
    if item.is_special:
        return _on_refusal(item, answer.text, calls)
    if any(same_calls(calls, wanted) for wanted in item.alternatives):
        return Verdict(True)
    shown = [(call.name, call.arguments) for call in calls]
    return Verdict(False, f"called {shown}, wanted {item.truth}"[:500])


def _on_refusal(item: Item, text: str, calls: Sequence[Call]) -> Verdict:
    if calls:
        return Verdict(False, f"called {[call.name for call in calls]}"[:500])
    if not text.strip():
        return Verdict(False, "said nothing")
    missed: list[str] = []
    match item.question.category:
        case "special_incomplete":
            named = [name.strip() for names in item.truth.values() for name in names]
            missed = [name for name in named if not names_parameter(text, name)]
        case "special_error_param":
            values = [str(value).strip() for values in item.truth.values() for value in values]
            missed = [value for value in values if value.lower() not in text.lower()]
            if not missed and not _FAULT.search(text):
                return Verdict(False, "did not say that it is wrong")
    return Verdict(not missed, f"did not say {', '.join(missed)}"[:500] if missed else "")


def names_parameter(text: str, name: str) -> bool:
    """Whether a text has a parameter's name, be it in words: ``startDate``, or a start date."""
    wanted = _words(name)
    said = _words(text)
    length = len(wanted)
    starts = range(len(said) - length + 1)
    return any(said[start : start + length] == wanted for start in starts)


def _words(text: str) -> list[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"[a-z0-9]+", spaced.lower())
