"""Suites of questions: a prompt, an answer, a checker."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selenite.cli.eval.targets import (
    Base,
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
    targets_of,
)

if TYPE_CHECKING:
    from selenite.eval.measure import Target
    from selenite.eval.question import Suite
    from selenite.eval.scoreboard import Result


def bfcl(
    directory: Model = None,
    category: Annotated[
        list[str] | None, typer.Option(help="One of its categories; give it once for each.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions of each category, the first ones.")
    ] = None,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    allow_remote: Remote = False,
    tag: Tag = None,
    base: Base = None,
    free: Free = True,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 512,
) -> None:
    """The Berkeley Function Calling Leaderboard's single turns in Python, by its own checker."""
    from selenite.eval.bfcl.score import leaderboard
    from selenite.eval.bfcl.suite import bfcl as suite

    targets = targets_of(directory, url, api_key, model, allow_remote, tag, base)
    asked = suite(category or (), limit)
    for result in measure_suite(asked, targets, free, out, concurrency, max_tokens):
        shares = {name: found.share for name, found in result.scores.items()}
        counts = {name: found.total for name, found in result.scores.items()}
        for name, share in leaderboard(shares, counts).items():
            typer.echo(f"{result.agent}: {name} {share:.3f}, as the leaderboard adds it up")


def acebench(
    directory: Model = None,
    category: Annotated[
        list[str] | None, typer.Option(help="One of its categories; give it once for each.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions of each category, the first ones.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A checkout of its repository; none: it is downloaded.")
    ] = None,
    as_text: Annotated[
        bool, typer.Option("--as-text", help="Its own prompts, with calls as text.")
    ] = False,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    allow_remote: Remote = False,
    tag: Tag = None,
    base: Base = None,
    free: Free = True,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 512,
) -> None:
    """ACEBench's English questions of one reply each, by our own typed comparison."""
    from selenite.eval.acebench.suite import acebench as suite
    from selenite.eval.acebench.suite import groups

    targets = targets_of(directory, url, api_key, model, allow_remote, tag, base)
    offered = suite(category or (), limit, data)
    asked = suite(category or (), limit, data, "text") if as_text else offered
    for result in measure_suite(asked, targets, free, out, concurrency, max_tokens, offered):
        for name, share in groups({n: found.share for n, found in result.scores.items()}).items():
            typer.echo(f"{result.agent}: {name} {share:.3f}, the mean over its categories")


def ifeval(
    directory: Model = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts, the first ones.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Its input_data.jsonl; none: it is downloaded.")
    ] = None,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    allow_remote: Remote = False,
    tag: Tag = None,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 1280,
) -> None:
    """IFEval by lm-eval's checkers, read against replies that are the same to every prompt."""
    from rich.console import Console

    from selenite.eval.ifeval.measure import bounds, measure, suite, table, write
    from selenite.eval.ifeval.prompts import read_prompts
    from selenite.eval.ifeval.scores import lift

    target = target_of(directory, url, api_key, model, allow_remote, tag)
    prompts = read_prompts(data)[:limit]
    results, beyond, folder = bounds(prompts), None, "bounds"
    if target is not None:
        found = measure(prompts, target, out, concurrency, max_tokens)
        beyond, folder = lift(found, results), target.folder
        results.insert(0, found)
    path = out / folder / f"ifeval-{digest(suite(prompts))}.json"
    write(path, prompts, results, beyond)
    Console().print(table(results))
    if beyond is not None:
        typer.echo(
            f"{results[0].agent}: {beyond.difference:+.3f} ({beyond.low:+.3f} to {beyond.high:+.3f}"
            f") beyond the best constant, {beyond.constant}, in the average of strict"
        )
    typer.echo(path)


def functions(
    directory: Model = None,
    count: Annotated[int, typer.Option(min=1, help="Requests.")] = 500,
    seen: Annotated[
        bool, typer.Option(help="Of functions that training has, with other values.")
    ] = False,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    allow_remote: Remote = False,
    tag: Tag = None,
    base: Base = None,
    free: Free = True,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 512,
) -> None:
    """Our own single requests, of functions that are held out of training."""
    from selenite.eval.functions import functions as suite

    targets = targets_of(directory, url, api_key, model, allow_remote, tag, base)
    questions = suite(count, "train" if seen else "concept")
    measure_suite(questions, targets, free, out, concurrency, max_tokens)


def measure_suite(
    suite: Suite,
    targets: list[Target],
    free: bool,
    out: Path,
    concurrency: int,
    max_tokens: int,
    offered: Suite | None = None,
) -> list[Result]:
    """``offered``: the same questions with their tools, for the bounds, where ``suite`` has
    none."""
    from rich.console import Console

    from selenite.eval.measure import measure, modes_of
    from selenite.eval.scoreboard import bounds, table, write

    results = bounds(offered or suite)
    has_tools = any(question.tools for question in suite.questions)
    for target in targets:
        modes = modes_of(target, free) if has_tools else (None,)  # no call, no grammar
        results[-1:-1] = measure(suite, target, out, modes, concurrency, max_tokens)
    folder = targets[0].folder if targets else "bounds"
    path = out / folder / f"{suite.name}-{digest(suite)}.json"
    write(path, suite, results)
    Console().print(table(suite, results))
    typer.echo(path)
    return results


def digest(suite: Suite) -> str:
    """Of the questions, so that a part of a suite does not overwrite the whole."""
    asked = "\n".join([suite.version, *(question.id for question in suite.questions)])
    return hashlib.sha256(asked.encode()).hexdigest()[:8]


def compare(
    first: Annotated[Path, typer.Argument(help="A result file of this command.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same questions.")],
    agent: Annotated[
        str | None, typer.Option(help="Of the first file; its first model's mode if not given.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Of the second file; the same as of the first if not given.")
    ] = None,
) -> None:
    """Two results on the same questions: who has more right, and can it be chance?"""
    from selenite.eval.scoreboard import compare as run
    from selenite.eval.scoreboard import read_verdicts

    one, mine = read_verdicts(first, agent)
    other, theirs = read_verdicts(second, against or agent)
    total, only_first, only_second, chance = run(mine, theirs)
    typer.echo(f"{total} questions; only {one} ({first}): {only_first} right; ", nl=False)
    typer.echo(f"only {other} ({second}): {only_second} right")
    typer.echo(f"so uneven or more by chance: {chance:.2g} (McNemar's exact test)")
