"""A world whose replies a model writes, while the true one runs beside it: the drift experiment.

    call ─► the true world: records, policies, event ─► true reply ─┐
        └─► model: records at the beginning, what it answered so far ─► what the agent is shown

The records, the events and so the judges' truth are the true world's. ``drift`` tells where what
was shown is something else; such a trajectory is for the experiment, and no replay lets it pass.
Failures that a task plans are no model's to guess: they are shown as they are, and so is a reply
with which the model agrees but for the order of its parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from selenite.agent.episodes.episode import Agent
from selenite.agent.episodes.trajectory import Trajectory, Turn
from selenite.agent.roles.ask import ask
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source
from selenite.agent.tools.tool import Tool
from selenite.agent.values.kind import Value
from selenite.agent.world.faults import FaultPlan
from selenite.agent.world.records import canonical
from selenite.agent.world.reply import RETRYABLE, Code, Reply
from selenite.agent.world.world import World
from selenite.types import Message

_PLANNED = frozenset({*RETRYABLE, Code.CONFLICT, Code.PERMISSION_DENIED})


class LlmWorld(World):
    """The world that ``truth`` is, as long as nothing was called there, played by a model."""

    def __init__(self, truth: World, faults: FaultPlan, source: Source, session: Session) -> None:
        super().__init__(truth.domain, truth.records, truth.today, faults)
        self._source = source
        self._session = session
        self._beginning = json.dumps(truth.records.tables(), ensure_ascii=False)
        self._history: list[str] = []

    def call(self, name: str, arguments: Mapping[str, Value]) -> Reply:
        """Does the call, and answers what the model does; what is true where it has no answer."""
        true = super().call(name, arguments)
        tool = self.domain.by_tool.get(name)
        written = json.dumps(dict(arguments), ensure_ascii=False)
        shown = true
        if tool is not None and true.code not in _PLANNED:
            messages = self._messages(tool, written)
            reply = ask(self._source, self._session, messages, _schema(tool), _read)
            if reply is not None and canonical(reply.content) != canonical(true.content):
                shown = reply
        self._history.append(f"{name} {written}\n-> {shown.text()}")
        return shown

    def _messages(self, tool: Tool, arguments: str) -> list[Message]:
        policies = "\n".join(policy.sentence() for policy in self.domain.policies)
        return self._source.prompt.messages(
            title=self.domain.title,
            today=self.today.isoformat(),
            policies=policies or "(none)",
            records=self._beginning,
            history="\n".join(self._history) or "(none)",
            name=tool.name,
            description=tool.description,
            parameters=json.dumps(tool.parameters),
            returns=json.dumps(tool.returns),
            arguments=arguments,
        )


class TruthReader:
    """An agent that reads the true replies: one that knows the solution cannot do with others."""

    def __init__(self, agent: Agent, world: World) -> None:
        self._agent = agent
        self._world = world

    def act(self, messages: Sequence[Message]) -> Turn:
        """The agent's turn."""
        true = iter(self._world.events)
        return self._agent.act(
            [
                Message("tool", next(true).reply.text(), tool_call_id=message.tool_call_id)
                if message.role == "tool"
                else message
                for message in messages
            ]
        )


def drift(trajectory: Trajectory) -> list[str]:
    """Replies that were shown and are not what is so, each in a line. Errors agree by code."""
    shown = [message.content for message in trajectory.messages if message.role == "tool"]
    return [
        f"call {place}: {event.tool} was shown to return {text[:80]}"
        for place, (event, text) in enumerate(zip(trajectory.events, shown, strict=True))
        if _essence(json.loads(text)) != _essence(event.reply.content)
    ]


def _essence(content: dict[str, Any]) -> str:
    match content:
        case {"error": {"code": code}}:
            return f"error {code}"
        case _:
            return canonical(content)


def _schema(tool: Tool) -> dict[str, Any]:
    error = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "enum": [code.value for code in Code]},
            "message": {"type": "string"},
        },
        "required": ["code", "message"],
    }
    either = [("result", dict(tool.returns)), ("error", error)]
    return {
        "type": "object",
        "anyOf": [
            {
                "type": "object",
                "properties": {name: schema},
                "required": [name],
                "additionalProperties": False,
            }
            for name, schema in either
        ],
    }


def _read(answer: dict[str, Any]) -> Reply:
    if "error" in answer:
        return Reply({"error": answer["error"]}, Code(answer["error"]["code"]))
    return Reply(answer["result"])
