"""The agent that knows the solution, and plays it as a good agent would.

It asks for what is missing, looks before it writes, retries what may be retried, mends what it got
wrong, and reports what is so.
"""

from __future__ import annotations

import json
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.agent.episodes.defects import Defect
from selenite.agent.episodes.style import AgentStyle, phrase
from selenite.agent.episodes.trajectory import Turn
from selenite.agent.tasks.plan import (
    Given,
    Phase,
    Read,
    Source,
    Step,
    sources_of,
    value_of,
)
from selenite.agent.tasks.task import MISSING, Task, TaskClass
from selenite.agent.tools.making import IDEMPOTENCY_KEY
from selenite.agent.tools.tool import Effect, Tool
from selenite.agent.values.kind import Value, joined
from selenite.agent.values.texts import Identifier, Reference
from selenite.agent.world.domain import Domain
from selenite.agent.world.reply import RETRYABLE, Code
from selenite.agent.world.world import World
from selenite.types import Message

_TRIES = 3
Call = tuple[str, Mapping[str, Value]]


@dataclass(frozen=True)
class Seen:
    """What came back of a call, as the agent reads it."""

    content: Any
    code: Code | None


Script = Generator[Turn, list[Seen], None]


class ScriptedAgent:
    """Plays a task's solution; ``defect`` spoils it in one way."""

    def __init__(
        self,
        task: Task,
        style: AgentStyle,
        world: World,
        rng: random.Random,
        defect: Defect | None = None,
    ) -> None:
        self._task = task
        self._style = style
        self._is_parallel = style.is_parallel or task.cls is TaskClass.PARALLEL
        self._domain: Domain = world.domain
        self._title = world.domain.subject
        self._spare = world.fork()  # to see what another call would do
        self._rng = rng
        self._defect = defect
        self._seen: list[Seen] = []  # by step
        self._wrong: dict[str, Value] = {}  # invented values by slot
        self._guessed: tuple[Step, dict[str, Value]] | None = None  # a call, and ids not yet read
        self.did_spoil = False  # whether the defect found a place
        self._script = self._play()
        self._started = False

    def act(self, messages: Sequence[Message]) -> Turn:
        """The next turn after these messages."""
        if not self._started:
            self._started = True
            return next(self._script)
        return self._script.send(_results(messages))

    def _play(self) -> Script:
        last = len(self._task.steps) - 1
        for phase in self._task.phases:
            if phase.steps or phase.answers:
                yield from self._ask(phase)
                yield from self._steps(phase, last)
                yield Turn(self._report(phase))
            else:
                yield Turn(phrase("chat", self._rng, title=self._title, report=phase.report))
        while True:  # the user goes on although all is said
            yield Turn("That is all that I can do here.")

    def _ask(self, phase: Phase) -> Script:
        missing = [name for name in phase.slots if name in self._task.withheld]
        if self._defect is Defect.INVENTED_ARGUMENT:
            self._invent(missing or phase.slots)
            if missing and self.did_spoil:
                return
        if missing and self._defect is Defect.NEVER_ASKED:
            self.did_spoil = True
            return
        if missing:
            words = joined([self._task.slots[name].words for name in missing])
            yield Turn(phrase("ask_for", self._rng, slots=words))

    def _invent(self, names: Sequence[str]) -> None:
        written = {
            source.slot
            for step in self._task.steps
            if step.is_write
            for source in step.sources.values()
            if isinstance(source, Given)
        }
        for name in names:
            slot = self._task.slots[name]
            value = slot.kind.draw(self._rng, self._spare.today)
            if name in written and value != slot.value:
                self._wrong[name] = value
                self.did_spoil = True
                return

    def _steps(self, phase: Phase, last: int) -> Script:
        if self._defect is Defect.CLAIMED_TOO_EARLY and any(s.is_write for s in phase.steps):
            self.did_spoil = True
            yield Turn(self._report(phase))
        if self._defect is Defect.UNNEEDED_CALL and not self.did_spoil:
            yield from self._extra()
        done = 0
        while done < len(phase.steps):
            group = self._group(phase.steps[done:])
            if self._leaves_out(group, len(self._seen), last):
                return
            if self._defect is Defect.UNTRIED and group[0].fails:
                self.did_spoil = True
                self._seen.append(Seen({}, group[0].fails))
                done += 1
                continue
            try:
                yield from self._confirm(group)
                yield from self._run(group)
            except LookupError:  # what a spoilt call did not return
                assert self._defect is not None, f"{self._task.id} needs what it did not read"
                return
            done += len(group)

    def _group(self, steps: Sequence[Step]) -> list[Step]:
        """The steps that go out together: those that need nothing of one another."""
        first = len(self._seen)
        if self._guesses(steps, first):
            return list(steps[:2])
        group = [steps[0]]
        for step in steps[1:]:
            same = step.tool == steps[0].tool or not (step.is_write or steps[0].is_write)
            is_alone = step.fails or steps[0].fails or any(n >= first for n in step.needs)
            if not self._is_parallel or not same or is_alone:
                break
            group.append(step)
        blunder = self._task.blunder
        faulty = any(
            self._task.setting.faults.faults and tool == step.tool
            for step in group
            for tool, _ in self._task.setting.faults.faults
        )
        is_marked = blunder is not None and first <= blunder.step < first + len(group)
        return group[:1] if faulty or is_marked else group

    def _guesses(self, steps: Sequence[Step], first: int) -> bool:
        """Whether the second call goes out with the first, although it needs ids from there."""
        if self._defect is not Defect.GUESSED_TOGETHER or self.did_spoil or len(steps) < 2:
            return False
        later, kinds = steps[1], self._tool(steps[1]).by_name
        reads = [
            name
            for name, source in later.sources.items()
            if any(isinstance(part, Read) and part.step == first for part in sources_of(source))
        ]
        ids = all(isinstance(kinds[name].kind, Identifier) for name in reads)
        if reads and ids and later.is_write:
            drawn = {name: kinds[name].kind.draw(self._rng, self._spare.today) for name in reads}
            self.did_spoil = all(drawn[name] != later.arguments[name] for name in reads)
            self._guessed = (later, drawn) if self.did_spoil else None
        return self.did_spoil

    def _confirm(self, group: Sequence[Step]) -> Script:
        for step in group:
            if self._tool(step).effect is Effect.DELETE and self._task.confirms:
                if self._defect is Defect.UNCONFIRMED:
                    self.did_spoil = True
                    continue
                yield Turn(phrase("ask_yes", self._rng, id=self._id(step, self._arguments(step))))

    def _run(self, group: Sequence[Step]) -> Script:
        """Sends the calls, and again while that may help."""
        first = len(self._seen)
        calls = [self._spoilt(step) for step in group]
        blunder = self._task.blunder
        if blunder is not None and blunder.step == first:
            wrong = _with(calls[0], blunder.parameter, blunder.value)
            yield Turn(self._look(group), (wrong,), is_trained=False)
            content = phrase("repair", self._rng)
        else:
            content = self._look(group)
        for _ in range(_TRIES):
            seen = yield Turn(content, tuple(calls))
            if len(calls) > 1 or seen[0].code not in {*RETRYABLE, Code.CONFLICT}:
                break
            content = phrase("again", self._rng)
            if seen[0].code is Code.CONFLICT:
                yield from self._read_again(group[0], calls[0])
                content = ""
        self._seen += seen

    def _read_again(self, step: Step, call: Call) -> Script:
        tool = self._tool(step)
        get = next(
            (
                t
                for t in map(self._domain.by_tool.__getitem__, self._task.tools)
                if t.family == "get" and t.entity == tool.entity
            ),
            None,
        )
        if get is not None:
            id = call[1][tool.param_of("id").name]
            yield Turn(phrase("reread", self._rng), ((get.name, {get.param_of("id").name: id}),))

    def _spoilt(self, step: Step) -> Call:
        """The call of a step, or what the defect makes of it."""
        call = step.tool, self._arguments(step)
        is_last_write = step.is_write and step is [s for s in self._task.steps if s.is_write][-1]
        if self._defect is Defect.BROKEN_CALL and not self.did_spoil:
            required = [p.name for p in self._tool(step).params if p.required]
            if required and (is_last_write or not any(s.is_write for s in self._task.steps)):
                self.did_spoil = True
                return _with(call, required[0], MISSING)
        if self._defect is Defect.EXTRA_ARGUMENT and self._tool(step).family == "create":
            for param in self._tool(step).params:
                is_own = param.required or param.name in call[1] or param.field == IDEMPOTENCY_KEY
                if not is_own and not isinstance(param.kind, Reference):
                    self.did_spoil = True
                    return _with(call, param.name, param.kind.draw(self._rng, self._spare.today))
        if self._defect is Defect.WRONG_TOOL and is_last_write:
            for other in self._siblings(step):
                arguments = {other.param_of("id").name: self._id(step, call[1])}
                if self._spare.fork().call(other.name, arguments).is_ok:
                    self.did_spoil = True
                    return other.name, arguments
        return call

    def _siblings(self, step: Step) -> list[Tool]:
        """Other tools that write with nothing but an id."""
        tool = self._tool(step)
        return [
            other
            for other in self._domain.tools
            if other.entity == tool.entity
            and other.name != tool.name
            and other.family in ("move", "delete", "duplicate")
            and any(p.field == "id" for p in tool.params)
        ]

    def _id(self, step: Step, arguments: Mapping[str, Value]) -> str:
        """The record that a step is about."""
        return str(arguments[self._tool(step).param_of("id").name])

    def _extra(self) -> Script:
        """A change that nobody asked for, of a record that nobody spoke of."""
        wanted = {getattr(p, "id", "") for p in self._task.goal.predicates}
        for tool in self._rng.sample(self._domain.tools, len(self._domain.tools)):
            if tool.family not in ("move", "delete", "duplicate"):
                continue
            if tool.name in self._task.setting.faults.lasting:
                continue
            for id in sorted(self._spare.records.of(tool.entity).keys() - wanted):
                arguments = {tool.param_of("id").name: id}
                if self._spare.fork().call(tool.name, arguments).is_ok:
                    self.did_spoil = True
                    yield Turn("", ((tool.name, arguments),))
                    return

    def _leaves_out(self, group: Sequence[Step], first: int, last: int) -> bool:
        lazy = (Defect.PREMATURE_STOP, Defect.CLAIMED_NOT_DONE)
        is_last = first + len(group) - 1 == last and group[-1].is_write
        if self._defect in lazy and is_last:
            self.did_spoil = True
            return True
        return False

    def _report(self, phase: Phase) -> str:
        if self._defect is Defect.PREMATURE_STOP and self.did_spoil:
            return "I have looked at it."
        said = []
        written = {self._tool(step).entity for step in phase.steps if step.is_write}
        if self._defect is Defect.CLAIMED_REFUSED and written == {"escalation"}:
            self.did_spoil = True
            return "Done. It is now taken care of, as you asked."
        if phase.report:
            is_done = bool(written - {"escalation"}) and phase.is_whole
            said.append(phrase("report" if is_done else "fact", self._rng, report=phase.report))
        values: dict[str, list[str]] = {}  # those of one name in one sentence
        for answer in phase.answers:
            value = answer.forms[0]
            if self._defect is Defect.WRONG_ANSWER and not self.did_spoil:
                value, self.did_spoil = _other(value, self._rng), True
            values.setdefault(answer.words, []).append(value)
        for words, told in values.items():
            said.append(phrase("answer", self._rng, words=words, value=joined(told)))
        return " ".join(said)

    def _arguments(self, step: Step) -> dict[str, Value]:
        contents = [seen.content for seen in self._seen]
        guessed = self._guessed[1] if self._guessed and self._guessed[0] is step else {}

        def value(name: str, source: Source) -> Value:
            if name in guessed:
                return guessed[name]
            if isinstance(source, Given) and source.slot in self._wrong:
                return self._wrong[source.slot]
            return value_of(source, self._task.slots, contents)

        return {name: value(name, source) for name, source in step.sources.items()}

    def _tool(self, step: Step) -> Tool:
        return self._domain.by_tool[step.tool]

    def _look(self, group: Sequence[Step]) -> str:
        """What is said beside calls that only read."""
        is_said = self._style.says_steps and not (group[0].is_write or group[0].fails)
        return phrase("look", self._rng) if is_said else ""


def _with(call: Call, parameter: str, value: Value) -> Call:
    arguments = {name: v for name, v in call[1].items() if name != parameter}
    return call[0], arguments if value == MISSING else {**arguments, parameter: value}


def _other(value: str, rng: random.Random) -> str:
    """Another value of the same look."""
    digits = [i for i, letter in enumerate(value) if letter.isdigit()]
    if not digits:
        return f"not {value[::-1]}"
    place = rng.choice(digits)
    other = rng.choice([d for d in "123456789" if d != value[place]])
    return value[:place] + other + value[place + 1 :]


def _results(messages: Sequence[Message]) -> list[Seen]:
    """What the tools said since the agent's last turn."""
    found: list[Seen] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        content = json.loads(message.content)
        match content:
            case {"error": {"code": code}}:
                found.insert(0, Seen(content, Code(code)))
            case _:
                found.insert(0, Seen(content, None))
    return found
