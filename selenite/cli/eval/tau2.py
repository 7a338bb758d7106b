"""tau2-bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selenite.cli.eval.questions import measure_suite
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


def tau2(
    directory: Model = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="retail, airline, telecom or mock; one for each.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of its tasks; test (of mock: base) where not given.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="Who the user is: ticket, slots, next-action or llm.")
    ] = "slots",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Tasks of each domain, the first ones.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Of each task.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 for one trial, 0.7 for more, where not given.")
    ] = None,
    guided: Annotated[bool, typer.Option(help="Calls held to a grammar.")] = True,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    user_url: Annotated[
        str | None, typer.Option(help="A server with the model that plays the user (llm).")
    ] = None,
    user_api_key: Annotated[
        str | None, typer.Option(envvar="SELENITE_USER_API_KEY", help="Of that server.")
    ] = None,
    user_model: Annotated[str | None, typer.Option(help="As that server names it.")] = None,
    allow_remote: Remote = False,
    tag: Tag = None,
    free: Free = True,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 4,
    max_tokens: MaxTokens = 512,
) -> None:
    """tau2's customers, by its own orchestrator and evaluators, with four kinds of user."""
    from rich.console import Console

    from selenite.eval.tau2.command import check, play, suites
    from selenite.eval.tau2.measure import Options
    from selenite.eval.tau2.run import NEXT_ACTION

    target = target_of(directory, url, api_key, model, allow_remote, tag)
    user = target_of(None, user_url, user_api_key, user_model, allow_remote, tag)
    domains = domain or ["retail", "telecom"]
    heat = (0.0 if trials == 1 else 0.7) if temperature is None else temperature
    options = Options(mode, trials, heat, max_tokens, guided, concurrency, limit)
    check(options, user)
    if mode == NEXT_ACTION:
        for suite in suites(domains, split, limit):
            measure_suite(suite, [target] if target else [], free, out, concurrency, max_tokens)
        return
    table, lines = play(domains, split, target, user, out, options)
    Console().print(table)
    typer.echo("\n".join(lines))
