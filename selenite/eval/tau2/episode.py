"""One task played: tau2's orchestrator asks, players answer, its evaluator decides.

Whatever tau2 or the pipeline gets wrong is an ``error``, and such an episode has no verdict. What
an agent gets wrong about the form of a turn ends the episode with nothing gained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selenite.eval.question import read_call
from selenite.eval.tau2.process import Process
from selenite.eval.tau2.slot_user import SlotUser
from selenite.eval.tau2.task import Player, Task, Turn
from selenite.types import Message, ToolCall

EMPTY = "a turn without text and calls"
MALFORMED = "a call whose arguments are no JSON object"
NO_CALL = "text, where an agent without a user can only call"
OF_TAU2 = "tau2: "
"""What errors begin with that are exceptions of tau2."""
DONE = "done"
"""The tool by which an agent without a user ends."""


@dataclass(frozen=True)
class Episode:
    """What came of one trial."""

    task: str
    trial: int
    reward: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)  # of the reward, by tau2's names
    ended: str = ""  # by tau2's names; "": before its end, by a fault
    turns: int = 0  # of the agent
    calls: int = 0  # of the agent
    fault: str = ""  # the agent's own, about the form of a turn
    user_fault: str = ""  # the user broke its rules; the first way
    error: str = ""  # of the pipeline: there is no verdict

    @property
    def is_judged(self) -> bool:
        """Whether it counts."""
        return not self.error

    @property
    def passes(self) -> bool:
        """Whether all that tau2 asks for is there."""
        return self.is_judged and self.reward > 1 - 1e-6


def play(
    process: Process,
    number: int,
    task: Task,
    trial: int,
    agent: Player,
    user: Player | None,
) -> Episode:
    """``number`` is the episode's alone, in its process. Without a user the agent is alone with
    the ticket."""
    turns = calls = 0
    breach = ""

    def ended(**fields: Any) -> Episode:
        values = {"turns": turns, "calls": calls, "user_fault": breach, **fields}
        return Episode(task.id, trial, **values)

    event = process.ask("open", number=number, task=task.id, solo=user is None)
    while "ask" in event:
        messages = tuple(map(read_message, event["messages"]))
        is_agent = event["ask"] == "agent"
        player = agent if is_agent else user
        assert player is not None
        turn = player.act(messages)
        arguments = [read_call(call.name, call.arguments).arguments for call in turn.calls]
        fault = turn.fault or _fault(turn, arguments, must_call=user is None)
        if is_agent:
            turns += 1
            calls += len(turn.calls)
            if isinstance(user, SlotUser):
                user.see(turn.calls)
        else:
            breach = breach or turn.breach or fault
        if turn.error or fault:
            process.ask("close", number=number)
            if turn.error:
                return ended(error=turn.error)
            return ended(fault=fault) if is_agent else ended(error=f"user: {fault}")
        event = process.ask("reply", number=number, turn=_told(turn, arguments, is_agent))
    if "lost" in event:
        return ended(error=event["lost"])
    if "error" in event:
        return ended(error=f"{OF_TAU2}{event['error']}")
    return ended(reward=event["reward"], parts=event["parts"], ended=event["ended"])


def _fault(turn: Turn, arguments: Sequence[object], must_call: bool) -> str:
    if any(found is None for found in arguments):
        return MALFORMED
    if not turn.calls:
        return NO_CALL if must_call else "" if turn.text.strip() else EMPTY
    return ""


def _told(turn: Turn, arguments: Sequence[Any], is_agent: bool) -> dict[str, Any]:
    requestor = "assistant" if is_agent else "user"
    calls = [
        {"id": call.id, "name": call.name, "arguments": table, "requestor": requestor}
        for call, table in zip(turn.calls, arguments, strict=True)
    ]
    return {"text": turn.text or None, "calls": calls or None}


def read_message(entry: Mapping[str, Any]) -> Message:
    # Half of a surrogate pair, which arguments can spell, has no place in a request.
    content = (entry.get("content") or "").encode("utf-8", "replace").decode()
    calls = tuple(
        ToolCall(call["name"], json.dumps(call["arguments"]), call["id"])
        for call in entry.get("tool_calls") or ()
    )
    return Message(
        entry["role"],
        content,
        tool_calls=calls,
        tool_call_id=entry["id"] if entry["role"] == "tool" else None,
    )
