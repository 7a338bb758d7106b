"""Real tools for one episode: MCP servers in a directory of their own.

    with Toolbox([launch_of(read_catalogue(), "filesystem")]) as toolbox:
        reply = toolbox.call("write_file", {"path": "/workspace/a.txt", "content": "hello"})

It is called like a ``World``: a reply to every call, and an event with the state's digest before
and after. Episodes share nothing, so that as many may run at once as there are threads for them.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from selenite.agent.mcp.connection import Connection
from selenite.agent.mcp.convert import McpTool, cut, reply_of, reply_of_error, tool_of
from selenite.agent.mcp.directory import EpisodeDirectory
from selenite.agent.mcp.launch import Launch
from selenite.agent.mcp.names import shown_names
from selenite.agent.mcp.sdk import MCPError, start_blocking_portal
from selenite.agent.world.reply import Code, Refusal, Reply, refused
from selenite.agent.world.world import Event
from selenite.errors import ConfigError, EndpointError
from selenite.types import ToolSpec

_DEPTH = 100  # of arguments; the SDK's parser reads about twice as many levels


class Toolbox:
    """The tools of some servers, from ``with`` on. One caller at a time."""

    def __init__(
        self,
        launches: Sequence[Launch],
        start: Path | None = None,
        start_seconds: float = 60.0,
        call_seconds: float = 60.0,
        max_reply_chars: int = 100_000,
    ) -> None:
        """``start`` is a snapshot in which the episode begins; without it the directory is empty.

        Raises ``ConfigError`` for two servers of one name.
        """
        for name, count in Counter(launch.name for launch in launches).items():
            if count > 1:
                raise ConfigError(f"{count} MCP servers are named {name!r}: rename all but one")
        self.events: list[Event] = []
        self._launches = launches
        self._start = start
        self._seconds = (start_seconds, call_seconds)
        self._max_reply_chars = max_reply_chars

    def __enter__(self) -> Self:
        """Makes the directory and starts the servers.

        Raises ``EndpointError`` for a server that does not start, naming it and the reason, and
        ``StorageError`` when the directory cannot be made. Nothing is left then.
        """
        with ExitStack() as stack:
            root = stack.enter_context(tempfile.TemporaryDirectory(prefix="selenite-episode-"))
            self.directory = EpisodeDirectory(Path(root), self._start)
            portal = stack.enter_context(start_blocking_portal())
            self._connections: dict[str, Connection] = {}
            for launch in self._launches:
                opened = Connection(portal, launch, self.directory, *self._seconds)
                stack.callback(opened.close)
                self._connections[launch.name] = opened
            self.tools = self._offered()
            self._by_name = {tool.spec.name: tool for tool in self.tools}
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the servers and removes the directory."""
        self._stack.close()

    @property
    def specs(self) -> list[ToolSpec]:
        """The tools as a model is offered them."""
        return [tool.spec for tool in self.tools]

    @property
    def instructions(self) -> dict[str, str]:
        """What servers say about their use, by server; those that say nothing are left out."""
        said = {name: each.instructions for name, each in self._connections.items()}
        return {name: self.directory.shown(text) for name, text in said.items() if text}

    def call(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        """Calls a tool by the name that models are told. What a server refuses is a reply.

        Raises ``EndpointError`` when the server fails; there is no event of such a call.
        """
        before = self.digest()
        try:
            reply = self._answer(name, arguments)
        except Refusal as refusal:
            reply = refused(refusal)
        self.events.append(Event(name, arguments, reply, before, self.digest()))
        return reply

    def digest(self) -> str:
        """Of the servers' state: see ``EpisodeDirectory.digest``."""
        return self.directory.digest()

    def snapshot(self, target: Path) -> None:
        """Copies the state to a new folder, with which other episodes may ``start``."""
        self.directory.snapshot(target)

    def _offered(self) -> tuple[McpTool, ...]:
        tools = {}
        for server, connection in self._connections.items():
            for tool in connection.tools:
                if (server, tool.name) in tools:
                    raise EndpointError(
                        f"the MCP server {server!r} has two tools named {tool.name!r}, and a call "
                        "could mean either; take a version without this, or leave it out"
                    )
                tools[server, tool.name] = tool
        names = {pair: name for name, pair in shown_names(tools).items()}
        found = []
        for pair, tool in tools.items():
            ours = tool_of(self._connections[pair[0]].launch, names[pair], tool)
            description, parameters = map(
                self.directory.shown, (ours.spec.description, ours.spec.parameters)
            )
            found.append(replace(ours, spec=ToolSpec(names[pair], description, parameters)))
        return tuple(found)

    def _answer(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        tool = self._by_name.get(name)
        if tool is None:
            raise Refusal(Code.UNKNOWN_TOOL, f"There is no tool {name!r}.")
        _check(arguments)
        given = self.directory.real(dict(arguments))
        connection = self._connections[tool.server]
        try:
            reply = reply_of(connection.call(tool.name, given), connection.launch.failures)
        except MCPError as error:
            reply = reply_of_error(error)
        return cut(Reply(self.directory.shown(reply.content), reply.code), self._max_reply_chars)


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuses what no server could read: it would not answer."""
    try:
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
        depth = _depth(arguments)
    except (ValueError, TypeError, RecursionError) as error:
        raise Refusal(
            Code.INVALID_ARGUMENT, f"The arguments cannot be sent as JSON: {error}."
        ) from error
    if depth > _DEPTH:
        raise Refusal(
            Code.INVALID_ARGUMENT, f"The arguments are nested {depth} deep; at most {_DEPTH} are."
        )


def _depth(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value
    is_nested = isinstance(value, dict | list)
    return 1 + max(map(_depth, items), default=0) if is_nested else 0
