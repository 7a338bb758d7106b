"""``selenite chat``: talk to a model in the terminal."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer


def chat(
    model: Annotated[
        Path | None,
        typer.Argument(help="A model directory to serve for this chat; else --url is asked."),
    ] = None,
    url: Annotated[str, typer.Option(help="A server that runs.")] = "http://127.0.0.1:8000",
    name: Annotated[
        str | None, typer.Option("--model", help="The model there; the first that it lists.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="SELENITE_API_KEY", help="The key of that server.")
    ] = None,
    system: Annotated[str, typer.Option(help="System message.")] = "",
    tools: Annotated[
        Path | None,
        typer.Option(help="JSON file: OpenAI's list of tools. You type what they give."),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of an answer at most.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same answers.")] = None,
) -> None:
    """Ask, read the answer as it is written, go on; /help lists the commands.

    Without a terminal each line of standard input is a turn; exits with 12 where one failed.
    """
    from rich.console import Console

    from selenite.client.chat import Conversation, Terminal
    from selenite.client.child_server import child_server
    from selenite.client.endpoint import Endpoint
    from selenite.errors import EndpointError
    from selenite.log import CONSOLE

    fields: dict[str, Any] = {
        "temperature": temperature,
        "max_tokens": max_tokens,
        "seed": seed,
        "tools": None if tools is None else _tools(tools),
    }
    options = {field: value for field, value in fields.items() if value is not None}
    with ExitStack() as stack:
        if model is None:
            endpoint = Endpoint.parse(url, api_key)
        else:
            with CONSOLE.status(f"starting a server of {model}"):
                endpoint = stack.enter_context(child_server(model))
        conversation = Conversation(endpoint, name or endpoint.served_model(), options)
        stack.callback(conversation.close)
        conversation.system = system
        terminal = Terminal(conversation, Console(highlight=False))
        terminal.run()
    if terminal.has_failed and not sys.stdin.isatty():  # a script should know
        raise typer.Exit(EndpointError.exit_code)


def _tools(file: Path) -> list[Any]:
    from selenite.errors import ConfigError

    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--tools {file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"--tools {file}: not JSON ({error})") from error
    if not isinstance(listed, list):
        raise ConfigError(f"--tools {file}: must be a list of tools, as OpenAI's API takes it")
    return listed
