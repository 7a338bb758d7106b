"""Endpoints for every role: right answers, worked out here, and whatever else a test answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from selenite.agent.episodes.episode import agent_of
from selenite.agent.episodes.scripted import ScriptedAgent
from selenite.agent.models.config import EndpointConfig
from selenite.agent.randomness import stream
from selenite.agent.roles.config import JudgeConfig, PartConfig, RolesConfig
from selenite.agent.roles.role import Role
from selenite.agent.roles.roles import Roles, open_roles
from selenite.agent.tasks.author import make_task
from selenite.agent.tasks.task import Task
from selenite.agent.world.faults import NO_FAULTS
from selenite.clock import ManualClock
from selenite.types import Message, ToolCall
from tests.agent.models.stub import answer, calling
from tests.fixtures.scripted_server import Answer, ScriptedServer, scripted_server

DOMAINS = range(120)
ADDED = "Ahem! "
ARCHETYPE = {
    "name": "loyalty_card",
    "fields": ["holder person !", "level bronze|silver|gold", "points count 0..500 points"],
    "life": ["issued", "block issued > blocked", "unblock blocked > issued"],
}
Reply = Callable[[dict[str, Any]], Answer]
"""What an endpoint answers to a body. Its ``model`` is the name of the role."""


def task_of(number: int, seed: int = 6) -> Task:
    return make_task(seed, number, DOMAINS)


def config_of(url: str, *roles: Role, **options: Any) -> RolesConfig:
    """The roles are models at an endpoint, the others code. Options of ``RolesConfig`` go there."""
    fields = {name: options.pop(name) for name in ("cache_dir", "ledger") if name in options}
    part = {
        name: options.pop(name)
        for name in ("repairs", "max_tokens", "temperature")
        if name in options
    }
    votes = {"votes": options.pop("votes", 3)}
    settings = {"timeout": 5.0, "retries": 1, **options}
    return RolesConfig(
        endpoints={
            role.value: EndpointConfig(**{"base_url": url, "model": role.value, **settings})
            for role in roles
        },
        **fields,
        **{
            role.value: (
                JudgeConfig(endpoint=role.value, **part, **votes)
                if role is Role.JUDGE
                else PartConfig(endpoint=role.value, **part),
            )
            for role in roles
        },
    )


@contextmanager
def roles_by(reply: Reply, *roles: Role, **options: Any) -> Iterator[tuple[Roles, ScriptedServer]]:
    """The roles are played by an endpoint that answers so."""
    with (
        scripted_server(lambda path, body: reply(body)) as server,
        open_roles(config_of(server.url, *roles, **options), 6, clock=ManualClock()) as opened,
    ):
        yield opened, server


class Stage:
    """One server for many tests, each with its ``reply``; roles are opened once for each set."""

    def __init__(self, url: str) -> None:
        self.reply: Reply = GoodEndpoint(task_of(0))
        self._url = url
        self._opened: dict[str, Roles] = {}

    def roles(self, reply: Reply, *roles: Role, **options: Any) -> Roles:
        """Roles that are played by ``reply``."""
        self.reply = reply
        key = repr((roles, options))
        if key not in self._opened:
            config = config_of(self._url, *roles, **options)
            self._opened[key] = open_roles(config, 6, clock=ManualClock())
        self._opened[key].described.clear()
        return self._opened[key]

    def close(self) -> None:
        for roles in self._opened.values():
            roles.ledger.totals().check_integrity()
            roles.close()


@contextmanager
def one_stage() -> Iterator[Stage]:
    stage: Stage | None = None

    def script(path: str, body: Any) -> Answer:
        assert stage is not None
        return stage.reply(body)

    with scripted_server(script) as server:
        stage = Stage(server.url)
        yield stage
        stage.close()


def text(content: Any) -> Answer:
    """A completion with JSON."""
    return answer(json.dumps(content))


def asked(body: dict[str, Any]) -> str:
    """What was asked at first, after the examples."""
    later = ("That cannot be used", "Your reply cannot be used")
    users = [entry["content"] for entry in body["messages"] if entry["role"] == "user"]
    found: str = [content for content in users if not content.startswith(later)][-1]
    return found


def original(body: dict[str, Any]) -> str:
    """The text that an author or a user is to put in other words."""
    ask = asked(body)
    match body["model"]:
        case Role.USER:
            return ask.partition("in your own words:\n")[2]
        case Role.TOOL_AUTHOR:
            return ask.partition("Description: ")[2]
        case _:
            return ask


class GoodEndpoint:
    """Plays each role of one task as well as can be."""

    def __init__(self, task: Task) -> None:
        seed, number = task.setting.seed, task.number
        world = task.setting.open()
        self._agent = ScriptedAgent(task, agent_of(task), world, stream(seed, "stub", number))
        self._truth = replace(task.setting, faults=NO_FAULTS).open()

    def __call__(self, body: dict[str, Any]) -> Answer:
        match body["model"]:
            case Role.AGENT:
                return self._turn(body)
            case Role.TOOL_WORLD:
                return self._result(body)
            case Role.JUDGE:
                return text({"reason": "It did what was wanted.", "verdict": True})
            case Role.DOMAIN_AUTHOR:
                return text(ARCHETYPE)
            case _:
                return text({"text": ADDED + original(body)})

    def _turn(self, body: dict[str, Any]) -> Answer:
        turn = self._agent.act([_message(entry) for entry in body["messages"]])
        if not turn.calls:
            return answer(turn.content)
        calls = [(name, json.dumps(dict(arguments))) for name, arguments in turn.calls]
        return calling(*calls, content=turn.content or None)

    def _result(self, body: dict[str, Any]) -> Answer:
        ask = asked(body)
        tail = ask.partition("Now this tool is called: ")[2]
        name = next(tool for tool in self._truth.domain.by_tool if tail.startswith(f"{tool}. "))
        reply = self._truth.call(name, json.loads(tail.partition("\nArguments: ")[2]))
        return text(reply.content if not reply.is_ok else {"result": reply.content})


def _message(entry: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"], call["id"])
        for call in entry.get("tool_calls", ())
    )
    content = entry["content"] or ""
    return Message(entry["role"], content, tool_calls=calls, tool_call_id=entry.get("tool_call_id"))
