"""Our own single requests (``agent/functions``), of concepts that training never sees.

This is what is tuned on; public benchmarks are only measured on. Where no call is due, any text is
right; else the calls must be those that the request was made from, in any order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from selenite.agent.functions.sample import Sample, make_sample
from selenite.agent.functions.selection import Split
from selenite.agent.synthesis.config import sources_digest
from selenite.eval.comparison import OMITTED, Wanted, same_calls
from selenite.eval.question import TOO_LONG, Answer, Call, Question, Suite, Verdict

_SEED = 1_000_003  # of no training data


def functions(count: int, split: Split = "concept") -> Suite:
    """``count`` requests; split ``train``: of concepts that are trained on, with other values."""
    samples = {f"{split}-{n}": make_sample(_SEED, n, split) for n in range(count)}
    wanted = {name: _wanted(sample) for name, sample in samples.items()}

    def judge(answers: Mapping[str, Answer]) -> dict[str, Verdict]:
        return {
            name: _verdict(answer, wanted[name])
            for name, answer in answers.items()
            if not answer.error
        }

    return Suite(
        "functions",
        f"{split}, sources {sources_digest()[:12]}",
        tuple(_question(name, sample) for name, sample in samples.items()),
        {name: _gold(sample) for name, sample in samples.items()},
        judge,
    )


def _question(name: str, sample: Sample) -> Question:
    tools = tuple(function.tool for function in sample.functions)
    return Question(name, sample.sort.value, sample.messages[:-1], tools)


def _gold(sample: Sample) -> Answer:
    answer = sample.messages[-1]
    calls = tuple(Call(call.name, json.loads(call.arguments)) for call in answer.tool_calls)
    return Answer(answer.content, calls)


def _wanted(sample: Sample) -> list[Wanted]:
    """The calls of the sample. A default that is given though nobody asked for it is right, too."""
    defaults = {
        function.tool.name: {
            function.names[parameter.name[0]]: parameter.default
            for parameter in function.concept.parameters
            if parameter.name[0] in function.names and parameter.default is not None
        }
        for function in sample.functions
    }
    found = list[Wanted]()
    for call in sample.messages[-1].tool_calls:
        fields: dict[str, list[Any]] = {
            name: [value] for name, value in json.loads(call.arguments).items()
        }
        for name, default in defaults[call.name].items():
            fields.setdefault(name, [default, OMITTED])
        found.append((call.name, fields))
    return found


def _verdict(answer: Answer, wanted: list[Wanted]) -> Verdict:
    if answer.too_long:
        return Verdict(False, TOO_LONG)
    if answer.malformed:
        return Verdict(False, f"{answer.malformed} malformed calls")
    if same_calls(answer.calls, wanted):
        return Verdict(True)
    shown = [(call.name, call.arguments) for call in answer.calls]
    return Verdict(False, f"called {shown}, wanted {wanted}"[:500])
