"""``selenite run-batch INPUT -o OUTPUT``: answer a file of requests."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer


def run_batch(
    requests: Annotated[
        Path, typer.Argument(metavar="INPUT", help="JSON lines in OpenAI's batch format.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Answers; what is there already is kept.")
    ],
    serve: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="A model directory to serve for this; else --url is asked."
        ),
    ] = None,
    url: Annotated[str, typer.Option(help="A server that runs.")] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None, typer.Option(envvar="SELENITE_API_KEY", help="The key of that server.")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option(help="Load a server that is not on this machine.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Asked in the place of the model that each line names.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 16,
    retries: Annotated[
        int, typer.Option(min=0, help="Further tries while the server is full or away.")
    ] = 6,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one try.")] = 1800.0,
) -> None:
    """Ask every request that OUTPUT has no good answer of; exits with 1 where one failed."""
    from rich.progress import Progress

    from selenite.client.batch import BatchOptions
    from selenite.client.batch import run_batch as run
    from selenite.client.batch_file import OutputFile, read_input
    from selenite.client.child_server import child_server
    from selenite.client.endpoint import Endpoint
    from selenite.clock import SystemClock
    from selenite.log import CONSOLE

    lines = read_input(requests)
    endpoint = Endpoint.parse(url, api_key)
    if serve is None:
        endpoint.require_loopback(allow_remote)
    with ExitStack() as stack:
        file = stack.enter_context(closing(OutputFile(output)))
        done = sum(line.custom_id in file.done for line in lines)
        if serve is not None and done < len(lines):
            with CONSOLE.status(f"starting a server of {serve}"):
                endpoint = stack.enter_context(child_server(serve))
        progress = stack.enter_context(Progress(console=CONSOLE, transient=True))
        bar = progress.add_task("requests", total=len(lines), completed=done)
        options = BatchOptions(model, concurrency, retries, timeout)
        failed = run(lines, file, endpoint, options, SystemClock(), lambda: progress.advance(bar))
    typer.echo(f"{output}: {len(lines) - failed} answered ({done} before), {failed} failed")
    if failed:
        raise typer.Exit(1)
