"""One MCP server: its process, and what it is asked.

The SDK lives in the event loop of another thread (a portal). A server that fails, as opposed to a
tool that refuses, is an ``EndpointError``: it ends the episode, for nobody knows what such a server
has done.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from pydantic import ValidationError

from selenite.agent.mcp.directory import EpisodeDirectory
from selenite.agent.mcp.launch import PRIVATE, WORKSPACE, Launch
from selenite.agent.mcp.sdk import (
    CONNECTION_CLOSED,
    BlockingPortal,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ClientSession,
    Implementation,
    MCPError,
    PaginatedRequestParams,
    StdioServerParameters,
    TaskStatus,
    Tool,
    anyio,
    stdio_client,
)
from selenite.errors import EndpointError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_SELF = Implementation(name="selenite", version="1")
_TAIL = 600  # characters of what a server said on stderr, for errors


class Connection:
    """A running server. It is asked one thing at a time."""

    def __init__(
        self,
        portal: BlockingPortal,
        launch: Launch,
        directory: EpisodeDirectory,
        start_seconds: float,
        call_seconds: float,
    ) -> None:
        """Starts the server and lists its tools.

        Raises ``EndpointError`` when it cannot be started, ends, is not ready within
        ``start_seconds``, or says what is no MCP; its process is gone then.
        """
        self.launch = launch
        self._portal = portal
        self._call_seconds = call_seconds
        self._log = directory.log(launch.name)
        self._failure: EndpointError | None = None
        self._garbage: str | None = None  # a line of its stdout that is no message
        self._scope: anyio.CancelScope | None = None  # of what is being asked
        try:
            life, stop = portal.start_task(self._live, _parameters(launch, directory))
        except OSError as error:
            why = f"cannot be started: {error.strerror}: {error.filename!r}"
            raise self._failed(why, "install it") from error
        self._life: Future[None] = life
        self._stop: anyio.Event = stop
        try:
            self.instructions, self.tools = self._get("starting", _introduce, start_seconds)
        except MCPError as error:
            self.close()
            why = f"refuses to start: {error.message}"
            raise self._failed(why, "see what it needs, or leave it out") from error

    def call(self, tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Calls a tool, under the server's own name for it.

        Raises ``MCPError`` with what the server answers in place of running it, and
        ``EndpointError`` when it fails; then the server is ended, and further calls fail too.
        """
        if self._failure is not None:
            raise self._failure
        params = CallToolRequestParams(name=tool, arguments=dict(arguments))

        async def request(session: ClientSession) -> CallToolResult:
            # Not session.call_tool, which fails where a result does not fit the tool's own schema.
            return await session.send_request(CallToolRequest(params=params), CallToolResult)

        return self._get(f"a call of {tool!r}", request, self._call_seconds)

    def close(self) -> None:
        """Ends the server: its input is closed; if it is still there after two seconds it is
        terminated, and after two more killed, each with all of its process group."""
        self._portal.call(self._stop.set)
        crash = self._life.exception()  # waits for the end
        if crash is not None:
            logger.warning("MCP server %r: connection broken: %r", self.launch.name, crash)

    def _get(
        self, what: str, request: Callable[[ClientSession], Awaitable[T]], seconds: float
    ) -> T:
        try:
            return self._portal.call(self._ask, what, request, seconds)
        except EndpointError:
            self.close()
            raise

    async def _live(
        self, parameters: StdioServerParameters, *, task_status: TaskStatus[anyio.Event]
    ) -> None:
        """Holds the process and the session until told to stop."""
        stop = anyio.Event()
        with self._log.open("w", encoding="utf-8") as log:
            async with (
                stdio_client(parameters, errlog=log) as (read, write),
                ClientSession(
                    read, write, message_handler=self._hear, client_info=_SELF
                ) as self._session,
            ):
                task_status.started(stop)
                await stop.wait()

    async def _hear(self, message: object) -> None:
        """Is told what is no answer: notifications, and lines that are no messages."""
        if isinstance(message, Exception):
            self._garbage = _brief(message)
            if self._scope is not None:
                self._scope.cancel()

    async def _ask(
        self, what: str, request: Callable[[ClientSession], Awaitable[T]], seconds: float
    ) -> T:
        with anyio.move_on_after(seconds) as self._scope:
            if self._garbage is not None:
                self._scope.cancel()
            try:
                answer = await request(self._session)
            except MCPError as error:
                if error.code == CONNECTION_CLOSED and await self._is_gone():
                    why = f"ended during {what}"
                    raise self._failed(why, "see why, or leave it out") from error
                raise
            except ValidationError as error:
                raise self._failed(
                    f"answered {what} with what is no MCP: {_brief(error)}",
                    "take a version of it that keeps to the protocol",
                ) from error
            if self._garbage is None:
                return answer
        if self._garbage is not None:
            raise self._failed(
                f"wrote what is no message to stdout, before or during {what}: {self._garbage}",
                "make it write its log to stderr",
            )
        why = f"did not finish {what} within {seconds:g} s"
        raise self._failed(why, "allow it more, or leave it out")

    async def _is_gone(self) -> bool:
        """Whether the connection is closed, a code that servers use for errors of theirs, too."""
        try:
            await self._session.send_ping()
        except MCPError as error:
            return error.code == CONNECTION_CLOSED
        return False

    def _failed(self, what: str, remedy: str) -> EndpointError:
        """The error of a server that failed, for all calls from now on."""
        said = ""
        if self._log.exists():
            said = " ".join(self._log.read_text(encoding="utf-8", errors="replace").split())
        last = f"; its last words on stderr: {said[-_TAIL:]}" if said else ""
        self._failure = EndpointError(f"the MCP server {self.launch.name!r} {what}; {remedy}{last}")
        return self._failure


def _parameters(launch: Launch, directory: EpisodeDirectory) -> StdioServerParameters:
    places = {WORKSPACE: directory.workspace, PRIVATE: directory.private(launch.name)}
    filled = launch.filled(places)
    command, *arguments = filled.command
    return StdioServerParameters(
        command=command,
        args=arguments,
        env=directory.environment() | dict(filled.environment),
        cwd=directory.workspace,
        encoding_error_handler="replace",  # what is no UTF-8 is no JSON either, and found so
    )


async def _introduce(session: ClientSession) -> tuple[str, list[Tool]]:
    """A server's instructions and tools."""
    try:
        hello = await session.initialize()
    except RuntimeError as error:  # a version of the protocol that the SDK does not know
        raise MCPError(0, str(error)) from error
    page = await session.list_tools()
    tools = page.tools
    while page.next_cursor:
        page = await session.list_tools(params=PaginatedRequestParams(cursor=page.next_cursor))
        tools += page.tools
    return hello.instructions or "", tools


def _brief(error: Exception) -> str:
    """What is wrong and where, and how the wrong thing begins."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place + ': ' if place else ''}{first['msg']}: {str(first['input'])[:200]!r}"
