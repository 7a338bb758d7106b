"""A server against the weights that it says it serves."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from selenite.cli.eval.targets import (
    Concurrency,
    Free,
    Key,
    MaxTokens,
    Model,
    Name,
    Out,
    Remote,
    Tag,
    Url,
    target_of,
)


def vendor(
    directory: Model = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="The weights that are served; where a directory is given, itself."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Requests.")] = 100,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    allow_remote: Remote = False,
    tag: Tag = None,
    free: Free = True,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 256,
) -> None:
    """Does a server serve the weights as they are: schemas, when it calls, ids, grammars."""
    from rich.console import Console

    from selenite.errors import ConfigError
    from selenite.eval.ask import AskOptions
    from selenite.eval.functions import functions as suite_of
    from selenite.eval.measure import asked, modes_of
    from selenite.eval.vendor import check, reference_answers, table

    target = target_of(directory, url, api_key, model, allow_remote, tag)
    weights = reference or directory
    if weights is None or target is None:
        raise ConfigError("give a model directory, or --url and --reference")
    suite, modes = suite_of(count), modes_of(target, free)
    # What is asked is the server that runs now: nothing that it answered before is used.
    fresh = f"{target.fingerprint} {secrets.token_hex(8)}"
    options = AskOptions("", fresh, max_tokens=max_tokens, concurrency=concurrency)
    (_, guided), *others = asked(suite, target, out, modes, options)
    without = others[0][1] if others else guided
    theirs = reference_answers(weights, suite.questions, max_tokens)
    Console().print(table(check(suite.questions, guided, without, theirs)))
