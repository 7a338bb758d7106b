"""Between MCP's words and ours: tools, effects and replies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from selenite.agent.mcp.launch import Launch
from selenite.agent.mcp.sdk import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    CallToolResult,
    ContentBlock,
    MCPError,
    TextResourceContents,
    Tool,
)
from selenite.agent.tools.tool import Effect
from selenite.agent.world.reply import Code, Refusal, Reply, refused
from selenite.types import ToolSpec

_CODES = {INVALID_PARAMS: Code.INVALID_ARGUMENT, METHOD_NOT_FOUND: Code.UNKNOWN_TOOL}
_RPC_ERROR = re.compile(r"MCP error (-\d+): ")  # how the TypeScript SDK begins such an isError
_REMOVES = re.compile(r"delete|remove|drop|clear|purge|destroy|uninstall", re.IGNORECASE)


@dataclass(frozen=True)
class McpTool:
    """A tool of a server."""

    server: str
    name: str  # as its server calls it; ``spec.name`` is what models are told
    effect: Effect
    spec: ToolSpec
    returns: dict[str, Any] | None  # JSON schema of a result; None: it promises none


def tool_of(launch: Launch, shown: str, tool: Tool) -> McpTool:
    """A tool under the name that models are told."""
    parameters = {
        key: value for key, value in tool.input_schema.items() if key not in ("$schema", "title")
    }
    spec = ToolSpec(shown, tool.description or tool.title or "", parameters)
    effect = launch.effects.get(tool.name) or effect_of(tool)
    return McpTool(launch.name, tool.name, effect, spec, tool.output_schema)


def effect_of(tool: Tool) -> Effect:
    """What the server's hints say; without any, a tool may change what is there (the
    specification's default). A hint is a claim: the digests before and after show what happened."""
    hints = tool.annotations
    if hints is not None and hints.read_only_hint:
        return Effect.READ
    if hints is not None and hints.destructive_hint is False:
        return Effect.CREATE
    return Effect.DELETE if _REMOVES.search(tool.name) else Effect.UPDATE


def reply_of(result: CallToolResult, failures: tuple[str, ...] = ()) -> Reply:
    """What a tool answered. A refusal with a code of ours keeps it; of others only the text is
    known, and they are FAILED_PRECONDITION. A text that begins like one of ``failures`` is one."""
    text = _text(result.content)
    if result.is_error or text.startswith(failures):  # SDK 1.x: isError
        rpc_error = _RPC_ERROR.match(text)
        code = _code(int(rpc_error[1])) if rpc_error else Code.FAILED_PRECONDITION
        return _known_refusal(text) or refused(Refusal(code, text))
    structured = result.structured_content
    if isinstance(structured, dict):
        return Reply(structured)
    return Reply({"content": text})


def reply_of_error(error: MCPError) -> Reply:
    """What a server answered in place of running a tool."""
    details = {} if error.data is None else {"data": error.data}
    return refused(Refusal(_code(error.code), error.message, **details))


def cut(reply: Reply, most: int) -> Reply:
    """A reply of at most about ``most`` characters, which says so if it was longer."""
    text = reply.text()
    if len(text) <= most:
        return reply
    kept = f"{text[:most]} [cut: {len(text) - most} more characters]"
    return Reply({"content": kept}, reply.code)


def _code(rpc_code: int) -> Code:
    return _CODES.get(rpc_code, Code.FAILED_PRECONDITION)


def _known_refusal(text: str) -> Reply | None:
    """A refusal in the form of our worlds."""
    try:
        body = json.loads(text)
        return Reply(body, Code(body["error"]["code"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _text(content: Iterable[ContentBlock]) -> str:
    return "\n".join(map(_part, content))


def _part(block: ContentBlock) -> str:
    """A part of a result as text; what is none is named with its size."""
    match block.type:
        case "text":
            return block.text
        case "image" | "audio":
            return f"[{block.type}: {block.mime_type}, {len(block.data)} characters of base64]"
        case "resource_link":
            return f"[link: {block.uri}]"
        case "resource":
            found = block.resource
            return found.text if isinstance(found, TextResourceContents) else f"[file: {found.uri}]"
