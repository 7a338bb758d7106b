"""Work through the tools of real MCP servers, judged by what is there afterwards."""
