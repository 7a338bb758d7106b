"""A world: a domain with records. Agents act in it by calling tools, and nothing else changes it.

    call ─► known tool? ─► arguments fit? ─► fault planned? ─► policies ─► family ─► reply, event

A world is a function of its domain, its records, its day and the calls: it has no random numbers
and no clock of its own. Every event carries the state's hash before and after, so that a replay
proves itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from selenite.agent.tools import families
from selenite.agent.tools.making import IDEMPOTENCY_KEY
from selenite.agent.tools.tool import Tool
from selenite.agent.values.kind import Value, spoken
from selenite.agent.world.domain import Domain
from selenite.agent.world.faults import NO_FAULTS, Change, Fault, FaultPlan
from selenite.agent.world.records import Record, Records
from selenite.agent.world.reply import Code, Refusal, Reply, refused


@dataclass(frozen=True)
class Event:
    """One call and what came of it."""

    tool: str
    arguments: Mapping[str, Value]
    reply: Reply
    before: str  # digests of the records
    after: str


class World:
    """Records of a domain, and what has been done to them."""

    def __init__(
        self, domain: Domain, records: Records, today: date, faults: FaultPlan = NO_FAULTS
    ) -> None:
        self.domain = domain
        self.records = records
        self.today = today
        self.events: list[Event] = []
        self._faults = faults
        self._calls: Counter[str] = Counter()
        self._answered: dict[tuple[str, str], Reply] = {}  # by tool and idempotency key

    def fork(self, faults: FaultPlan = NO_FAULTS) -> World:
        """Another world in the same state, with no events."""
        return World(self.domain, self.records.copy(), self.today, faults)

    def call(self, name: str, arguments: Mapping[str, Value]) -> Reply:
        """Calls a tool. Whatever the arguments, the answer is a reply."""
        before = self.records.digest()
        try:
            reply = self._answer(name, arguments)
        except Refusal as refusal:
            reply = refused(refusal)
        self.events.append(Event(name, arguments, reply, before, self.records.digest()))
        return reply

    def change(self, change: Change) -> None:
        """What somebody else does to a record."""
        record = self.record(change.entity, change.id)
        self.records.put(change.entity, change.id, {**record, change.field: change.value})

    def new_id(self, entity: str) -> str:
        """The id of the entity's next record. What was removed leaves its number free only at the
        end, so ids follow from the state."""
        numbers = [int(id.rpartition("-")[2]) for id in self.records.of(entity)]
        return self.domain.by_entity[entity].id_kind.of(max(numbers, default=0) + 1)

    def record(self, entity: str, id: str) -> Record:
        """A record; refuses with NOT_FOUND where there is none."""
        found = self.records.find(entity, id)
        if found is None:
            raise Refusal(Code.NOT_FOUND, f"There is no {spoken(entity)} {id}.")
        return found

    def check_policies(self, tool: Tool, record: Record) -> None:
        """Refuses what a policy of the tool's verb does not allow on a record."""
        others = self.records.of(tool.entity).values()
        for policy in self.domain.policies_of(tool.entity, tool.verb):
            if not policy.allows(record, others, self.today):
                raise Refusal(Code.FAILED_PRECONDITION, policy.sentence(), rule=policy.id)

    def _answer(self, name: str, arguments: Mapping[str, Value]) -> Reply:
        tool = self.domain.by_tool.get(name)
        if tool is None:
            raise Refusal(Code.UNKNOWN_TOOL, f"There is no tool {name!r}.")
        given = _fields(tool, arguments)
        fault = self._faults.of(name, self._calls[name])
        self._calls[name] += 1
        if fault is not None and not fault.after:
            if fault.meanwhile is not None:
                self.change(fault.meanwhile)
            raise _failure(fault)
        key = given.pop(IDEMPOTENCY_KEY, None)
        known = self._answered.get((name, key)) if key is not None else None
        reply = known or Reply(families.run(self, tool, given))
        if key is not None:
            self._answered[name, key] = reply
        if fault is not None:
            raise _failure(fault)
        return reply


def _fields(tool: Tool, arguments: Mapping[str, Value]) -> dict[str, Value]:
    """Arguments by what they stand for, in their kinds' form; refuses those that do not fit."""
    for name in arguments:
        if name not in tool.by_name:
            known = ", ".join(tool.by_name) or "none"
            raise Refusal(
                Code.INVALID_ARGUMENT, f"Unknown parameter {name!r}; known: {known}.", field=name
            )
    found = {}
    for param in tool.params:
        if param.name not in arguments:
            if param.required:
                raise Refusal(
                    Code.INVALID_ARGUMENT, f"{param.name!r} is missing.", field=param.name
                )
            continue
        value = arguments[param.name]
        if not param.kind.accepts(value):
            raise Refusal(
                Code.INVALID_ARGUMENT,
                f"{param.name!r} does not fit its schema.",
                field=param.name,
                schema=param.kind.schema(),
            )
        found[param.field] = param.kind.canonical(value)
    return found


def _failure(fault: Fault) -> Refusal:
    match fault.code:
        case Code.RATE_LIMITED:
            seconds = fault.retry_after
            return Refusal(fault.code, "Too many requests.", retry_after=seconds)
        case Code.DEADLINE_EXCEEDED:
            return Refusal(fault.code, "The deadline passed; it may or may not have been done.")
        case Code.CONFLICT:
            text = "It was changed by somebody else meanwhile; read it again."
            return Refusal(fault.code, text)
        case Code.PERMISSION_DENIED:
            return Refusal(fault.code, "Your role may not use this tool.")
        case _:
            return Refusal(fault.code, "The service is not available at the moment.")
