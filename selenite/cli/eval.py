"""``selenite eval SUITE MODEL``: measure a model, or the engine that serves it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selenite.eval.parity import Parity
    from selenite.eval.question import Suite
    from selenite.eval.worlds import Episode

eval = typer.Typer(no_args_is_help=True, help="Measure a model between its floors and its ceiling.")

Model = Annotated[
    Path | None,
    typer.Argument(help="A model directory, which is served for this; none: only the bounds."),
]
Url = Annotated[str | None, typer.Option(help="A server that runs, in the place of a model.")]
Key = Annotated[str | None, typer.Option(envvar="SELENITE_API_KEY", help="Of that server.")]
Name = Annotated[str | None, typer.Option("--model", help="As that server names it.")]
Remote = Annotated[bool, typer.Option(help="Load a server that is not on this machine.")]
Free = Annotated[bool, typer.Option(help="Also without a grammar for calls (our own server only).")]
Out = Annotated[Path, typer.Option(help="Folder of answers and results.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests under way at once.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")]


@eval.command()
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
    free: Free = True,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 512,
) -> None:
    """The Berkeley Function Calling Leaderboard's single turns in Python, by its own checker."""
    from selenite.eval.bfcl.suite import bfcl as suite

    _measure(
        suite(category or (), limit),
        directory, url, api_key, model, allow_remote, free, out, concurrency, max_tokens,
    )  # fmt: skip


@eval.command()
def functions(
    directory: Model = None,
    count: Annotated[int, typer.Option(min=1, help="Requests.")] = 500,
    seen: Annotated[
        bool, typer.Option(help="Of functions that training has, in other words.")
    ] = False,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    allow_remote: Remote = False,
    free: Free = True,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 512,
) -> None:
    """Our own single requests, of functions that are held out of training."""
    from selenite.eval.functions import functions as suite

    _measure(
        suite(count, "train" if seen else "concept"),
        directory, url, api_key, model, allow_remote, free, out, concurrency, max_tokens,
    )  # fmt: skip


def _measure(
    suite: Suite,
    directory: Path | None,
    url: str | None,
    api_key: str | None,
    model: str | None,
    allow_remote: bool,
    free: bool,
    out: Path,
    concurrency: int,
    max_tokens: int,
) -> None:
    from rich.console import Console

    from selenite.errors import ConfigError
    from selenite.eval.measure import Target, measure
    from selenite.eval.scoreboard import bounds, table, write

    if directory is not None and url is not None:
        raise ConfigError("give a model directory or --url, not both")
    results = bounds(suite)
    name = "bounds"
    if directory is not None or url is not None:
        target = Target(directory, url, api_key, model, allow_remote)
        modes = (True, False) if free and directory is not None else (True,)
        results[-1:-1] = measure(suite, target, out, modes, concurrency, max_tokens)
        name = target.title
    path = out / name / f"{suite.name}.json"
    write(path, suite, results)
    Console().print(table(suite, results))
    typer.echo(path)


@eval.command()
def worlds(
    directory: Model = None,
    each: Annotated[int, typer.Option(min=1, help="Tasks of each axis.")] = 100,
    axis: Annotated[
        list[str] | None, typer.Option(help="One of the axes; give it once for each.")
    ] = None,
    domains: Annotated[
        int | None, typer.Option(min=1, help="Domains that tasks come from; 1 is one world.")
    ] = None,
    unused_tools: Annotated[
        int | None, typer.Option(min=0, help="The most tools beside those that a task is about.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Of each task.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 for one trial, 0.7 for more, where not given.")
    ] = None,
    guided: Annotated[bool, typer.Option(help="Calls held to a grammar.")] = True,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    allow_remote: Remote = False,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 256,
) -> None:
    """Our own worlds, in-domain and held out along four axes, with users that are code."""
    from rich.console import Console

    from selenite.errors import ConfigError
    from selenite.eval.measure import Target
    from selenite.eval.measure_worlds import bounds, measure_worlds, table, write
    from selenite.eval.worlds import AXES, DOMAINS, cases

    if directory is not None and url is not None:
        raise ConfigError("give a model directory or --url, not both")
    unknown = [name for name in axis or () if name not in AXES]
    if unknown:
        raise ConfigError(f"axis {unknown[0]!r}: must be one of {', '.join(AXES)}")
    known = cases(each, axis or AXES, domains or DOMAINS, unused_tools)
    results, name = bounds(known), "bounds"
    episodes: list[Episode] = []
    heat = (0.0 if trials == 1 else 0.7) if temperature is None else temperature
    protocol: dict[str, object] = {
        "trials": trials, "temperature": heat, "guided": guided, "max_tokens": max_tokens,
        "domains": domains or DOMAINS, "unused_tools": unused_tools,
    }  # fmt: skip
    if directory is not None or url is not None:
        target = Target(directory, url, api_key, model, allow_remote)
        found, episodes = measure_worlds(
            known, target, out, trials, heat, guided, concurrency, max_tokens
        )
        name, oracle = target.title, results.pop("oracle")
        results |= {target.title: found, "oracle": oracle}
        protocol["fingerprint"] = target.fingerprint()
    path = out / name / ("worlds.json" if guided else "worlds-free.json")
    write(path, results, protocol, episodes)
    Console().print(table(results, trials))
    typer.echo(path)


@eval.command()
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
    from selenite.eval.measure import Target, asked
    from selenite.eval.vendor import check, reference_answers, table

    weights = reference or directory
    if weights is None or (directory is None) == (url is None):
        raise ConfigError("give a model directory, or --url and --reference")
    target = Target(directory, url, api_key, model, allow_remote)
    suite = suite_of(count)
    modes = (True, False) if free and directory is not None else (True,)
    options = AskOptions(
        model or "", target.fingerprint(), max_tokens=max_tokens, concurrency=concurrency
    )
    guided, *others = asked(suite, target, out, modes, options)
    theirs = reference_answers(weights, suite.questions, max_tokens)
    Console().print(table(check(suite.questions, guided, (others or [guided])[0], theirs)))


@eval.command()
def prose(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    base: Annotated[
        Path | None, typer.Option(help="The model that it began with, to compare with.")
    ] = None,
    windows: Annotated[int, typer.Option(min=2, help="Of 1024 tokens each.")] = 64,
) -> None:
    """Loss on prose that nothing here is trained on, and what fine-tuning added to it."""
    from selenite import runtime
    from selenite.eval.prose import read_prose

    runtime.apply_threads()
    dtype = runtime.torch_dtype(runtime.choose_dtype("auto").value)
    own = read_prose(model, dtype, windows)
    typer.echo(f"{model}: {own.loss:.4f} nats per token")
    if base is not None:
        known = read_prose(base, dtype, windows)
        mean, low, high = own.worse_than(known)
        typer.echo(f"{base}: {known.loss:.4f} nats per token")
        typer.echo(f"worse by {mean:+.2%} (95 % of windows' means: {low:+.2%} to {high:+.2%})")


@eval.command()
def parity(
    model: Annotated[Path, typer.Argument(help="A run directory or a model directory.")],
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    batch_invariant: Annotated[
        bool, typer.Option(help="In the mode in which every difference must be 0.")
    ] = False,
    prompts: Annotated[int, typer.Option(min=2, help="Requests in a batch.")] = 12,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each completion.")] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Log-probabilities of the engine against the trainer's; exits with 1 where batch-invariant
    mode has a difference."""
    from selenite import runtime
    from selenite.chat.tokenizer import Tokenizer
    from selenite.errors import ConfigError
    from selenite.eval import parity

    if dtype not in ("auto", "bfloat16", "float32"):
        raise ConfigError(f"--dtype {dtype}: must be auto, bfloat16 or float32")
    if batch_invariant:
        runtime.enable_batch_invariant()
    runtime.apply_threads()
    chosen = runtime.choose_dtype(dtype)  # type: ignore[arg-type]
    trained, served, exact = parity.load(model, runtime.torch_dtype(chosen.value))
    longest = min(192, trained.config.max_positions // 2)
    texts = parity.prompts(Tokenizer.load(model), prompts, longest)
    found = parity.compare(trained, served, texts, max_tokens, exact)
    mode = "batch-invariant" if batch_invariant else "fast"
    _print(found, f"{model}: {chosen.value}, {mode} mode", as_json)
    if batch_invariant and not found.is_exact:
        raise typer.Exit(1)


def _print(found: Parity, title: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"title": title} | asdict(found)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("against one batch of the engine", "largest", "mean", "tokens", "part ways"):
        table.add_column(name, justify="left" if table.row_count == 0 else "right")
    for each in [*found.differences, *([found.rounding] if found.rounding else [])]:
        parted = str(each.other_tokens)
        numbers = (f"{each.largest:.2e}", f"{each.mean:.2e}", str(each.tokens), parted)
        table.add_row(each.name, *numbers)
    Console().print(table)
