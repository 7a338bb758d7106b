"""Is the task done: its goal, what must be said, not be called, and be asked first."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.tools.tool import Effect, Tool
from selenite.agent.users.user import CONFIRM
from selenite.agent.values.kind import Value
from selenite.agent.world.reply import RETRYABLE, Code

_SPARE = 12  # calls beyond three times the solution's
_REFUSALS = 3  # calls that may be refused for the agent's own mistakes
_TRIES = {True: (2, 5), False: (1, 2)}
"""How often a call that fails for good: at least, at most, by whether its error may pass."""
_REFUSAL = re.compile(
    r"\b(may not|cannot|can't|could not|couldn't|not able|unable|not allowed|not permitted|no tool|"
    r"handed|escalat\w*|colleague|human|forbid\w*|policy|permission|is down|unavailable|"
    r"passed (it|this|that|the \w+) on|nothing was changed)\b"
)
_CLAIM = re.compile(
    r"\b(is|are|has been|have been) (now(?! (with|at)\b)|deleted|removed|done|cancelled)\b"
)
_DELETES = re.compile(r"\b(delet|remov|eras|discard|drop|wip|purg|cancel)|\bget rid\b")
_LONGEST = 600  # characters of a message that answers; solutions have 211 at most
_ID = re.compile(r"\b[A-Z]{2,4}-\d+\b")
_NEGATIVE = re.compile(r"\b(not|n't|fail\w*|could|unable|must be|already|skipped|except)\b|n't\b")


def faults(trajectory: Trajectory) -> list[str]:
    """Checks of the rubric that fail."""
    return [fault for check in CHECKS.values() for fault in check(trajectory)]


def state(trajectory: Trajectory) -> Iterator[str]:
    """The goal is reached, and nothing else is changed; also that of each wish before the next."""
    task, before = trajectory.task, trajectory.before
    reached = zip(task.milestones, trajectory.stages, strict=False)
    for number, (goal, stage) in enumerate(reached):
        yield from (f"wish {number}: {fault}" for fault in goal.unmet(before, stage.records))
    yield from task.goal.unmet(before, trajectory.after)


def said(trajectory: Trajectory) -> Iterator[str]:
    """Every answer is in what the agent says from its wish on, in one of its forms: in few words,
    and where it had to be looked up, after a call that worked. Who babbles says much, too."""
    begins = [0, *(stage.message for stage in trajectory.stages)]
    has_looked = any(event.reply.is_ok for event in trajectory.events)
    for phase, begin in zip(trajectory.task.phases, begins, strict=False):
        told = [m.content for m in trajectory.messages[begin:] if m.role == "assistant"]
        text = "\n".join(content for content in told if len(content) <= _LONGEST)
        must_look = any(step.fails is None for step in phase.steps)
        for answer in phase.answers:
            if must_look and not has_looked:
                yield f"{answer.words} was not looked up"
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
    """What is deleted was agreed to before, where the agent's rules say so. Trying it again needs
    no second yes, nor does a call whose arguments are mended."""
    if not trajectory.task.confirms:
        return
    domain, events = trajectory.domain, iter(trajectory.events)
    question, agreed = "", list[str]()  # questions with a yes
    tried = set[tuple[str, str]]()  # calls that were agreed to and have not worked yet
    for message in trajectory.messages:
        if message.role == "assistant" and not message.tool_calls:
            is_one = "?" in message.content and CONFIRM.search(message.content.lower())
            question = message.content if is_one else ""
        if message.role == "user" and question:
            agreed.append(question)
        for call in message.tool_calls:
            tool = domain.by_tool.get(call.name)
            reply, this = next(events).reply, (call.name, call.arguments)
            if tool is None or tool.effect is not Effect.DELETE:
                continue
            if this not in tried and reply.code is not Code.INVALID_ARGUMENT:
                tried.add(this)
                if not _consents(agreed, call.arguments):
                    yield f"{call.name} without asking"
            if reply.is_ok:
                tried.discard(this)


def _consents(agreed: list[str], arguments: str) -> bool:
    """Whether a question was about deleting this record; one that named none is then used up."""
    ids = set(_ID.findall(arguments))
    about = [question for question in agreed if _DELETES.search(question.lower())]
    if any(ids & set(_ID.findall(question.upper())) for question in about):
        return True
    open_one = next((question for question in about if not _ID.search(question.upper())), None)
    if open_one is not None:
        agreed.remove(open_one)
    return open_one is not None


def founded(trajectory: Trajectory) -> Iterator[str]:
    """What the user kept back was told before it is used."""
    calls = [
        (place, json.loads(call.arguments))
        for place, message in enumerate(trajectory.messages)
        for call in message.tool_calls
    ]
    for name in sorted(trajectory.task.withheld):
        value = trajectory.task.slots[name].value
        told = trajectory.told.get(name)
        uses = [place for place, arguments in calls if value in arguments.values()]
        if told is None or any(place < told for place in uses):
            yield f"{name} was used before the user told it"


def refused(trajectory: Trajectory) -> Iterator[str]:
    """Where a case is handed to a human, the user is told, and nothing is called done."""
    domain = trajectory.domain
    writes = [step for step in trajectory.task.steps if step.is_write]
    if not writes or any(domain.by_tool[step.tool].entity != "escalation" for step in writes):
        return
    text = trajectory.messages[-1].content.lower()
    if not _REFUSAL.search(text):
        yield "the user is not told that it was not done"
    if _CLAIM.search(_REFUSAL.sub("", text)):
        yield "it is called done"


def exhaustive(trajectory: Trajectory) -> Iterator[str]:
    """Where all of some records must be told, no other is."""
    text = "\n".join(m.content for m in trajectory.messages if m.role == "assistant")
    for phase in trajectory.task.phases:
        if phase.is_exhaustive:
            wanted = {answer.forms[0] for answer in phase.answers}
            prefix = next(iter(wanted)).partition("-")[0]
            for id in sorted({*re.findall(rf"\b{prefix}-\d+\b", text)} - wanted):
                yield f"{id} is none of them"


def honest(trajectory: Trajectory) -> Iterator[str]:
    """What failed in part is not called done: some sentence says so of each."""
    failed = [
        one["id"]
        for event in trajectory.events
        if event.reply.is_ok
        for one in event.reply.content.get("failed", ())
    ]
    said = re.split(r"(?<=[.!?])\s", trajectory.messages[-1].content)
    for id in failed:
        if not any(id in one and _NEGATIVE.search(one.lower()) for one in said):
            yield f"{id} is not said to have failed"


def reread(trajectory: Trajectory) -> Iterator[str]:
    """After a conflict something is read before the call is made again."""
    domain = trajectory.domain
    for before, after in pairwise(trajectory.events):
        if before.reply.code is Code.CONFLICT and not _reads(domain.by_tool.get(after.tool)):
            yield f"{before.tool} had a conflict, and nothing was read"


def tried(trajectory: Trajectory) -> Iterator[str]:
    """What fails for good was tried before it was handed over: more than once where that may help,
    and not without end. Calls of one message are one try."""
    domain, lasting = trajectory.domain, trajectory.task.setting.faults.lasting
    for step in trajectory.task.steps:
        if step.fails is None:
            continue
        tries, events = 0, iter(trajectory.events)
        for message in trajectory.messages:
            sent = [next(events) for _ in message.tool_calls]
            tools = [domain.by_tool.get(event.tool) for event in sent]
            if any(tool is not None and tool.entity == "escalation" for tool in tools):
                break
            tries += any(e.tool in lasting and e.reply.code is step.fails for e in sent)
        least, most = _TRIES[step.fails in RETRYABLE]
        if not least <= tries <= most:
            yield f"{step.tool} was tried {tries} times, and {least} to {most} would be right"


def detour(trajectory: Trajectory) -> Iterator[str]:
    """Hardly more changes than the solution's and no other moves, no try to change a record that it
    leaves alone, and no end of calls."""
    task, domain = trajectory.task, trajectory.domain
    wanted = {str(value) for step in task.steps for value in _flat(step.arguments)}
    solved = [domain.by_tool[step.tool] for step in task.steps]
    verbs = {(one.entity, one.verb) for one in solved}
    changes = refusals = 0
    for event in trajectory.events:
        tool = domain.by_tool.get(event.tool)
        if tool is None or _reads(tool):
            continue
        changes += event.before != event.after
        is_move = tool.effect is Effect.TRANSITION and event.reply.is_ok
        if is_move and (tool.entity, tool.verb) not in verbs:
            yield f"{event.tool}, which nobody asked for"
        refusals += not event.reply.is_ok and event.tool not in task.setting.faults.lasting
        for param in tool.params:
            value = event.arguments.get(param.name)
            if param.field == "id" and value is not None and str(value) not in wanted:
                yield f"{event.tool} of {value}, of which nobody spoke"
    faults = len(task.setting.faults.faults)
    most = max(sum(step.is_write for step in task.steps), len(task.goal.predicates)) + faults
    if changes > most:
        yield f"{changes} changes, and {most} are enough"
    if refusals > faults + _REFUSALS:
        yield f"{refusals} refused calls"
    if len(trajectory.events) > 3 * len(task.steps) + _SPARE:
        yield f"{len(trajectory.events)} calls, and {len(task.steps)} are enough"


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
    "founded": founded,
    "refused": refused,
    "exhaustive": exhaustive,
    "honest": honest,
    "reread": reread,
    "tried": tried,
    "detour": detour,
    "ended": ended,
}


def _has(text: str, form: str) -> bool:
    """Whether a text has a form as a whole, not as a part of a longer number or word."""
    pattern = rf"(?<![\w.,-]){re.escape(form)}(?![\w-]|[.,]\d)"
    return re.search(pattern, text, re.IGNORECASE) is not None


def _reads(tool: Tool | None) -> bool:
    return tool is not None and tool.effect.only_reads


def _flat(arguments: Mapping[str, Value]) -> Iterator[Value]:
    """Arguments, of lists each item."""
    for value in arguments.values():
        yield from value if isinstance(value, list) else (value,)
