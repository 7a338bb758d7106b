"""A world as an MCP server on stdin and stdout, so that anybody's agent can act in it.

    python -m selenite.agent.mcp.serve --seed 7 --domain 29 --world 1 --events events.jsonl

The policies are the server's instructions. Each event goes to a file as a line of JSON, so that
what was done can be judged afterwards: the same calls on the same world have the same digests.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenite.agent.mcp.sdk import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Server,
    ServerRequestContext,
    TextContent,
    Tool,
    ToolAnnotations,
    anyio,
    stdio_server,
)
from selenite.agent.ontology.archetypes import extend
from selenite.agent.tools import tool as ours
from selenite.agent.tools.tool import Effect
from selenite.agent.world.setting import Setting
from selenite.agent.world.world import Event, World
from selenite.errors import ConfigError, SeleniteError, StorageError


def serve_world(world: World, on_event: Callable[[Event], None] = lambda event: None) -> None:
    """Serves a world until stdin ends. ``on_event`` is told of each call before it is answered."""
    anyio.run(_serve, world_server(world, on_event))


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def world_server(world: World, on_event: Callable[[Event], None]) -> Server[Any]:
    """The server, for any transport of the SDK."""
    tools = [mcp_tool(tool) for tool in world.domain.tools]

    async def list_tools(
        context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(
        context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        reply = world.call(params.name, params.arguments or {})
        on_event(world.events[-1])
        return CallToolResult(
            content=[TextContent(text=reply.text())],
            # A refusal does not fit the tool's output schema, which some clients insist on.
            structured_content=reply.content if reply.is_ok else None,
            is_error=not reply.is_ok,
        )

    return Server(
        world.domain.id,
        title=world.domain.title,
        instructions=instructions(world),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def instructions(world: World) -> str:
    """What an agent has to know before it acts."""
    return "\n".join(
        [
            f"{world.domain.title}. Today is {world.today.isoformat()}.",
            *(policy.sentence() for policy in world.domain.policies),
        ]
    )


def mcp_tool(tool: ours.Tool) -> Tool:
    """A tool of ours in MCP's words."""
    returns = dict(tool.returns)
    return Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.parameters,
        output_schema=returns if returns.get("type") == "object" else None,
        annotations=ToolAnnotations(
            read_only_hint=tool.effect.only_reads,
            # Left open for what overwrites: a client takes it for destructive then.
            destructive_hint={Effect.DELETE: True, Effect.CREATE: False}.get(tool.effect),
            open_world_hint=False,
        ),
    )


def event_line(event: Event) -> str:
    """An event as a line of JSON."""
    reply = {"code": event.reply.code, "content": event.reply.content}
    record = {"tool": event.tool, "arguments": event.arguments, "reply": reply}
    return json.dumps(record | {"before": event.before, "after": event.after}) + "\n"


def main(arguments: list[str]) -> int:
    """Serves the world that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m selenite.agent.mcp.serve")
    parser.add_argument("--seed", type=int, help="of the repository; not with a corpus")
    parser.add_argument("--domain", type=int, required=True, help="number of the domain")
    parser.add_argument("--world", type=int, default=0, help="seed of its records and its day")
    parser.add_argument("--corpus", type=Path, help="a corpus that has the domain")
    parser.add_argument("--events", type=Path, help="a file to which each event is appended")
    given = parser.parse_args(arguments)
    try:
        setting = _setting(given.corpus, given.seed, given.domain)
        world = dataclasses.replace(setting, world=given.world).open()
        if given.events is None:
            serve_world(world)
        else:
            _serve_recorded(world, given.events)
    except SeleniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _setting(corpus: Path | None, seed: int | None, domain: int) -> Setting:
    """Of a corpus, or of a seed alone."""
    if (corpus is None) == (seed is None):
        raise ConfigError("give either --seed or --corpus, which has one")
    if domain < 0:
        raise ConfigError(f"--domain {domain}: must be 0 or more")
    if corpus is None:
        return Setting(seed or 0, domain, 0)
    from selenite.agent.synthesis.extension import read_additions
    from selenite.agent.synthesis.pipeline import read_admitted

    repository = read_admitted(corpus)
    if domain not in repository.numbers:
        raise ConfigError(f"--domain {domain}: is not among those that {corpus} admitted")
    return Setting(repository.seed, domain, 0, extension=extend(read_additions(corpus)))


def _serve_recorded(world: World, path: Path) -> None:
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: events cannot be written ({error.strerror})") from error

    def append(event: Event) -> None:
        file.write(event_line(event))
        file.flush()

    with file:
        serve_world(world, append)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
