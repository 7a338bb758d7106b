"""A task of tau2 as its files have it, and what a player says in its turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from selenite.types import Message, ToolCall, ToolSpec

STOP, TRANSFER, OUT_OF_SCOPE = "###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###"
"""By which a user ends a conversation."""
YES = "Yes, please go ahead."
"""To an agent that asks before it changes something, as policies demand."""


@dataclass(frozen=True)
class Action:
    """A call that the task has in its solution."""

    name: str
    arguments: Mapping[str, Any]
    is_users: bool  # made by the user, with a tool of the user's


@dataclass(frozen=True)
class Task:
    """What a user wants, and what is right."""

    id: str
    wish: str  # why the user calls
    known: str  # what the user can say, when asked
    directions: str  # how the user is to behave
    scenario: str  # all of it, for whoever is told everything at once
    ticket: str | None  # the same, as an agent without a user is told; None: there is none
    actions: tuple[Action, ...]
    to_say: tuple[str, ...]  # texts that the agent must have said
    has_history: bool  # the conversation has begun already


@dataclass(frozen=True)
class Domain:
    """All tasks of a split, and the tools."""

    name: str
    split: str
    tasks: tuple[Task, ...]
    tools: tuple[ToolSpec, ...]  # of the agent
    user_tools: tuple[ToolSpec, ...]
    writes: frozenset[str]  # names of tools, of both sides, that change something

    @property
    def is_solo(self) -> bool:
        """Whether an agent that is handed a ticket has the user's tools, too."""
        return bool(self.user_tools)


@dataclass(frozen=True)
class Turn:
    """What a player does: text, calls, or both; or why there is nothing of use."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    fault: str = ""  # the player's own: nothing can follow
    error: str = ""  # of the pipeline: there is no turn
    breach: str = ""  # of the rules of the game, after which it goes on


class Player(Protocol):
    """An agent, or a user; of one episode."""

    def act(self, messages: Sequence[Message]) -> Turn:
        """The next turn. The other side's turns have the role ``user``, and tools theirs."""


def read_domain(name: str, split: str, described: Mapping[str, Any]) -> Domain:
    """What ``official.py`` says of a domain."""
    return Domain(
        name,
        split,
        tuple(_task(entry) for entry in described["tasks"]),
        tuple(_tool(entry) for entry in described["agent"]),
        tuple(_tool(entry) for entry in described["user"]),
        frozenset(described["writes"]),
    )


def _tool(entry: Mapping[str, Any]) -> ToolSpec:
    return ToolSpec(entry["name"], entry["description"], entry["parameters"])


def _task(entry: Mapping[str, Any]) -> Task:
    told = entry["user_scenario"]["instructions"]
    if isinstance(told, str):
        told = {"reason_for_call": told}
    parts = ("reason_for_call", "known_info", "unknown_info", "task_instructions")
    criteria = entry["evaluation_criteria"] or {}
    history = (entry["initial_state"] or {}).get("message_history")
    return Task(
        id=entry["id"],
        wish=told["reason_for_call"].strip(),
        known=(told.get("known_info") or "").strip(),
        directions=(told.get("task_instructions") or "").strip(),
        scenario="\n".join(told[part].strip() for part in parts if told.get(part)),
        ticket=entry["ticket"],
        actions=tuple(
            Action(action["name"], action["arguments"], action["requestor"] == "user")
            for action in criteria.get("actions") or ()
        ),
        to_say=tuple(criteria.get("communicate_info") or ()),
        has_history=bool(history),
    )
