"""What we use of the official SDK (2.x), or the error that says how to get it."""

from __future__ import annotations

from selenite.errors import MissingExtraError

try:
    import anyio
    from anyio.abc import TaskStatus
    from anyio.from_thread import BlockingPortal, start_blocking_portal
    from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
    from mcp_types import (
        CONNECTION_CLOSED,
        INVALID_PARAMS,
        METHOD_NOT_FOUND,
        CallToolRequest,
        CallToolRequestParams,
        CallToolResult,
        ContentBlock,
        Implementation,
        ListToolsResult,
        PaginatedRequestParams,
        TextContent,
        TextResourceContents,
        Tool,
        ToolAnnotations,
    )
except ImportError as error:  # 1.x has other names
    raise MissingExtraError(error.name or "mcp", "agent", "tools over MCP") from error

__all__ = [
    "anyio",
    "BlockingPortal",
    "TaskStatus",
    "start_blocking_portal",
    "ClientSession",
    "MCPError",
    "StdioServerParameters",
    "stdio_client",
    "Server",
    "ServerRequestContext",
    "stdio_server",
    "CONNECTION_CLOSED",
    "INVALID_PARAMS",
    "METHOD_NOT_FOUND",
    "CallToolRequest",
    "CallToolRequestParams",
    "CallToolResult",
    "ContentBlock",
    "Implementation",
    "ListToolsResult",
    "PaginatedRequestParams",
    "TextContent",
    "TextResourceContents",
    "Tool",
    "ToolAnnotations",
]
