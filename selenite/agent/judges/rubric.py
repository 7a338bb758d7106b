"""Is the task done: its goal, what must be said, not be called, and be asked first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.tools.tool import Effect
from selenite.agent.world.setting import known_domain


def faults(trajectory: Trajectory) -> list[str]:
    """Checks of the rubric that fail."""
    return [fault for check in CHECKS.values() for fault in check(trajectory)]


def state(trajectory: Trajectory) -> Iterator[str]:
    """The goal is reached, and nothing else is changed."""
    yield from trajectory.task.goal.unmet(trajectory.before, trajectory.after)


def said(trajectory: Trajectory) -> Iterator[str]:
    """Every answer is in what the agent says, in one of its forms."""
    text = "\n".join(m.content for m in trajectory.messages if m.role == "assistant")
    for phase in trajectory.task.phases:
        for answer in phase.answers:
            if not any(_has(text, form) for form in answer.forms):
                yield f"{answer.words} was not told: {answer.forms[0]}"


def not_called(trajectory: Trajectory) -> Iterator[str]:
    """No forbidden tool, and none at all where there is nothing to do."""
    for event in trajectory.events:
        if event.tool in trajectory.task.forbidden:
            yield f"{event.tool} was called"
    if trajectory.task.needs_no_call and trajectory.events:
        yield f"{trajectory.events[0].tool} was called for nothing"


def confirmed(trajectory: Trajectory) -> Iterator[str]:
    """What is deleted was agreed to, where the agent's rules say so."""
    if not trajectory.task.confirms:
        return
    setting = trajectory.task.setting
    domain = known_domain(setting.seed, setting.domain)
    users = 0
    for message in trajectory.messages:
        users += message.role == "user"
        for call in message.tool_calls:
            tool = domain.by_tool.get(call.name)
            if tool is not None and tool.effect is Effect.DELETE and users < 2:
                yield f"{call.name} without asking"


def detour(trajectory: Trajectory) -> Iterator[str]:
    """No change but those of the solution, and no try to change a record that it leaves alone."""
    task = trajectory.task
    domain = known_domain(task.setting.seed, task.setting.domain)
    wanted = {str(value) for step in task.steps for value in step.arguments.values()}
    changes = 0
    for event in trajectory.events:
        tool = domain.by_tool.get(event.tool)
        if tool is None or tool.effect in (Effect.READ, Effect.COMPUTE):
            continue
        changes += event.before != event.after
        for param in tool.params:
            value = event.arguments.get(param.name)
            if param.field == "id" and value is not None and str(value) not in wanted:
                yield f"{event.tool} of {value}, of which nobody spoke"
    foreign = sum(fault.meanwhile is not None for fault in task.setting.faults.faults.values())
    most = sum(step.is_write for step in task.steps) + foreign
    if changes > most:
        yield f"{changes} changes, and {most} are enough"


def ended(trajectory: Trajectory) -> Iterator[str]:
    """The user left because all was done."""
    if trajectory.ended != "done":
        yield f"it ended by {trajectory.ended}"


Check = Callable[[Trajectory], Iterator[str]]
CHECKS: dict[str, Check] = {
    "state": state,
    "said": said,
    "not_called": not_called,
    "confirmed": confirmed,
    "detour": detour,
    "ended": ended,
}


def _has(text: str, form: str) -> bool:
    """Whether a text has a form as a whole, not as a part of a longer number or word."""
    return re.search(rf"(?<![\w.,-]){re.escape(form)}(?![\w-]|[.,]\d)", text) is not None
