"""Is the next call the solution's? Single turns after the first k calls of it, by no user.

The user's whole instruction is the first message, as in the mode ``ticket``; right is the name and
each argument, compared by type (``eval/comparison.py``). A summary for people may say anything.
Every call has its own question, so that a part of a task counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from selenite.eval.comparison import is_wanted
from selenite.eval.question import TOO_LONG, Answer, Call, Question, Suite, Verdict
from selenite.eval.tau2.episode import read_message
from selenite.eval.tau2.process import TAU2, Process
from selenite.eval.tau2.task import Action, Domain, Task
from selenite.types import Message, ToolCall

_FREE = "summary"


def next_action(process: Process, domain: Domain) -> Suite:
    """The questions of a domain's tasks, in order."""
    tools = (*domain.tools, *domain.user_tools)
    questions = list[Question]()
    due = dict[str, Action]()
    for task in domain.tasks:
        shown = process.ask("gold", id=task.id, solo=domain.is_solo)
        messages = _opening(task, shown)
        for number, action in enumerate(task.actions):
            id = f"{domain.name}/{task.id}/{number}"
            questions.append(Question(id, domain.name, tuple(messages), tools))
            due[id] = action
            call = ToolCall(
                action.name, json.dumps(action.arguments), f"functions.{action.name}:{number}"
            )
            messages += [
                Message("assistant", tool_calls=(call,)),
                Message("tool", shown["results"][number], tool_call_id=call.id),
            ]

    def judge(answers: Mapping[str, Answer]) -> dict[str, Verdict]:
        return {id: _verdict(due[id], found) for id, found in answers.items() if not found.error}

    gold = {id: Answer(calls=(Call(one.name, one.arguments),)) for id, one in due.items()}
    name = f"tau2-next-action-{domain.name}-{domain.split}"
    return Suite(name, TAU2.title, tuple(questions), gold, judge)


def _opening(task: Task, shown: Mapping[str, Any]) -> list[Message]:
    history = [read_message(entry) for entry in shown["history"]]
    return [
        Message("system", shown["system"]),
        *history,
        Message("user", task.ticket or task.scenario),
    ]


def _verdict(due: Action, answer: Answer) -> Verdict:
    if answer.too_long:
        return Verdict(False, TOO_LONG)
    if answer.malformed:
        return Verdict(False, f"{answer.malformed} malformed calls")
    if not answer.calls:
        return Verdict(False, "no call")
    call, arguments = answer.calls[0], dict(due.arguments)
    given = dict(call.arguments) if call.arguments is not None else None
    if given is not None and _FREE in arguments and isinstance(given.get(_FREE), str):
        del arguments[_FREE], given[_FREE]
    wanted = (due.name, {name: [value] for name, value in arguments.items()})
    if is_wanted(Call(call.name, given), wanted):
        return Verdict(True)
    return Verdict(False, f"{call.name}, and {due.name} is due" if call.name != due.name else
                   "other arguments")  # fmt: skip
