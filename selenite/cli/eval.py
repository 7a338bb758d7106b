"""``selenite eval SUITE MODEL``: measure a model, or the engine that serves it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selenite.eval.measure import Target
    from selenite.eval.parity import Parity
    from selenite.eval.question import Suite
    from selenite.eval.scoreboard import Result
    from selenite.eval.worlds import Episode
    from selenite.types import Decision

eval = typer.Typer(no_args_is_help=True, help="Measure a model between its floors and its ceiling.")

Model = Annotated[
    Path | None,
    typer.Argument(help="A model directory, which is served for this; none: only the bounds."),
]
Url = Annotated[str | None, typer.Option(help="A server that runs, in the place of a model.")]
Key = Annotated[str | None, typer.Option(envvar="SELENITE_API_KEY", help="Of that server.")]
Name = Annotated[str | None, typer.Option("--model", help="As that server names it.")]
Remote = Annotated[bool, typer.Option(help="Load a server that is not on this machine.")]
Base = Annotated[
    Path | None, typer.Option(help="The model that it was taught from, to be measured beside it.")
]
Free = Annotated[bool, typer.Option(help="Also without a grammar for calls (our own server only).")]
Tag = Annotated[
    str | None, typer.Option(help="With --url: use the answers of an earlier call of this tag.")
]
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

    targets = _targets(directory, url, api_key, model, allow_remote, tag, base)
    asked = suite(category or (), limit)
    for result in _measure(asked, targets, free, out, concurrency, max_tokens):
        shares = {name: found.share for name, found in result.scores.items()}
        counts = {name: found.total for name, found in result.scores.items()}
        for name, share in leaderboard(shares, counts).items():
            typer.echo(f"{result.agent}: {name} {share:.3f}, as the leaderboard adds it up")


@eval.command()
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

    targets = _targets(directory, url, api_key, model, allow_remote, tag, base)
    offered = suite(category or (), limit, data)
    asked = suite(category or (), limit, data, "text") if as_text else offered
    for result in _measure(asked, targets, free, out, concurrency, max_tokens, offered):
        for name, share in groups({n: found.share for n, found in result.scores.items()}).items():
            typer.echo(f"{result.agent}: {name} {share:.3f}, the mean over its categories")


@eval.command()
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

    target = _target(directory, url, api_key, model, allow_remote, tag)
    prompts = read_prompts(data)[:limit]
    results, beyond, folder = bounds(prompts), None, "bounds"
    if target is not None:
        found = measure(prompts, target, out, concurrency, max_tokens)
        beyond, folder = lift(found, results), target.folder
        results.insert(0, found)
    path = out / folder / f"ifeval-{_digest(suite(prompts))}.json"
    write(path, prompts, results, beyond)
    Console().print(table(results))
    if beyond is not None:
        typer.echo(
            f"{results[0].agent}: {beyond.difference:+.3f} ({beyond.low:+.3f} to {beyond.high:+.3f}"
            f") beyond the best constant, {beyond.constant}, in the average of strict"
        )
    typer.echo(path)


@eval.command()
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

    targets = _targets(directory, url, api_key, model, allow_remote, tag, base)
    questions = suite(count, "train" if seen else "concept")
    _measure(questions, targets, free, out, concurrency, max_tokens)


def _measure(
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
    path = out / folder / f"{suite.name}-{_digest(suite)}.json"
    write(path, suite, results)
    Console().print(table(suite, results))
    typer.echo(path)
    return results


def _target(
    directory: Path | None,
    url: str | None,
    api_key: str | None,
    model: str | None,
    allow_remote: bool,
    tag: str | None,
) -> Target | None:
    """Who is measured; None: nobody but the bounds."""
    from selenite.errors import ConfigError
    from selenite.eval.measure import Target

    if directory is not None and url is not None:
        raise ConfigError("give a model directory or --url, not both")
    if directory is None and url is None:
        return None
    target = Target(directory, url, api_key, model, allow_remote)
    return target if tag is None else dataclasses.replace(target, tag=tag)


def _targets(
    directory: Path | None,
    url: str | None,
    api_key: str | None,
    model: str | None,
    allow_remote: bool,
    tag: str | None,
    base: Path | None,
) -> list[Target]:
    """Who is measured: the model, then the base."""
    from selenite.errors import ConfigError
    from selenite.eval.measure import Target

    target = _target(directory, url, api_key, model, allow_remote, tag)
    if target is None and base is not None:
        raise ConfigError(f"--base {base}: is measured beside a model; give that, too")
    bases = [] if base is None else [Target(base, None)]
    targets = bases if target is None else [target, *bases]
    if len({each.title for each in targets}) < len(targets):
        raise ConfigError(f"--base {base}: has the name of the model itself; rename one of the two")
    return targets


def _digest(suite: Suite) -> str:
    """Of the questions, so that a part of a suite does not overwrite the whole."""
    asked = "\n".join([suite.version, *(question.id for question in suite.questions)])
    return hashlib.sha256(asked.encode()).hexdigest()[:8]


@eval.command()
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
    cls: Annotated[
        list[str] | None,
        typer.Option("--class", help="Of tasks, such as clean; give it once for each."),
    ] = None,
    states: Annotated[
        int, typer.Option(min=0, help="Of a domain's records, as the corpus had; 0: no two alike.")
    ] = 0,
    trials: Annotated[int, typer.Option(min=1, help="Of each task.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 for one trial, 0.7 for more, where not given.")
    ] = None,
    guided: Annotated[bool, typer.Option(help="Calls held to a grammar.")] = True,
    url: Url = None,
    api_key: Key = None,
    model: Name = None,
    allow_remote: Remote = False,
    tag: Tag = None,
    base: Base = None,
    out: Out = Path("runs/eval"),
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = 256,
) -> None:
    """Our own worlds, in-domain and held out along four axes, with users that are code."""
    from rich.console import Console

    from selenite.agent.tasks.task import TaskClass
    from selenite.errors import ConfigError
    from selenite.eval.measure_worlds import ORACLE, bounds, measure_worlds, table, write
    from selenite.eval.worlds import AXES, DOMAINS, cases

    targets = _targets(directory, url, api_key, model, allow_remote, tag, base)
    unknown = [name for name in axis or () if name not in AXES]
    if unknown:
        raise ConfigError(f"axis {unknown[0]!r}: must be one of {', '.join(AXES)}")
    strange = [name for name in cls or () if name not in [*TaskClass]]
    if strange:
        raise ConfigError(f"class {strange[0]!r}: must be one of {', '.join(TaskClass)}")
    classes = [each for each in TaskClass if each in (cls or TaskClass)]
    known = cases(each, axis or AXES, domains or DOMAINS, unused_tools, classes, states)
    results = bounds(known)
    episodes: dict[str, list[Episode]] = {}
    heat = (0.0 if trials == 1 else 0.7) if temperature is None else temperature
    protocol: dict[str, object] = {
        "trials": trials, "temperature": heat, "guided": guided, "max_tokens": max_tokens,
        "domains": domains or DOMAINS, "unused_tools": unused_tools, "each": each,
        "axes": list(axis or AXES), "classes": classes, "states": states,
    }  # fmt: skip
    oracle = results.pop(ORACLE)
    for target in targets:
        results[target.title], episodes[target.title] = measure_worlds(
            known, target, out, trials, heat, guided, concurrency, max_tokens
        )
    results[ORACLE] = oracle
    protocol["fingerprints"] = {target.title: target.fingerprint for target in targets}
    name = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:8]
    path = out / (targets[0].folder if targets else "bounds") / f"worlds-{name}.json"
    write(path, results, protocol, episodes)
    Console().print(table(results, trials))
    typer.echo(path)


@eval.command()
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

    target = _target(directory, url, api_key, model, allow_remote, tag)
    user = _target(None, user_url, user_api_key, user_model, allow_remote, tag)
    domains = domain or ["retail", "telecom"]
    heat = (0.0 if trials == 1 else 0.7) if temperature is None else temperature
    options = Options(mode, trials, heat, max_tokens, guided, concurrency, limit)
    check(options, user)
    if mode == NEXT_ACTION:
        for suite in suites(domains, split, limit):
            _measure(suite, [target] if target else [], free, out, concurrency, max_tokens)
        return
    table, lines = play(domains, split, target, user, out, options)
    Console().print(table)
    typer.echo("\n".join(lines))


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

    target = _target(directory, url, api_key, model, allow_remote, tag)
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
def longcontext(
    model: Annotated[Path, typer.Argument(help="A run directory or a model directory.")],
    length: Annotated[
        list[int] | None, typer.Option(min=64, help="Tokens of the prompts; give it once for each.")
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(min=0.001, max=0.999, help="Share of the prompt; give it once for each."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="One of the methods; give it once for each.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Texts that go on.")] = 8,
    told: Annotated[int, typer.Option(min=2, help="Tokens of each that are told.")] = 128,
    depths: Annotated[int, typer.Option(min=1, help="Depths of needles.")] = 5,
    each: Annotated[int, typer.Option(min=0, help="Needles at each depth.")] = 4,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    out: Out = Path("runs/eval"),
) -> None:
    """What chosen tokens and merged slots cost on long texts and needles, at equal budgets."""
    from rich.console import Console

    from selenite import runtime
    from selenite.eval.longcontext.methods import METHODS, Sizes, measure_methods
    from selenite.eval.longcontext.report import draw, tables, write
    from selenite.eval.measure import Target

    runtime.apply_threads()
    chosen = _dtype(dtype)
    sizes = Sizes(
        tuple(length or (512, 1024, 2048)),
        tuple(budget or (0.05, 0.1, 0.2, 0.5)),
        *(windows, told, depths, each, concurrency),
    )
    target = Target(model, None)
    cells = measure_methods(
        *(model, runtime.torch_dtype(chosen.value), sizes, method or list(METHODS)),
        lambda cell: typer.echo(
            f"{cell.length:,} tokens: {cell.method}, {cell.share:.0%}", err=True
        ),
    )
    for table in tables(cells):
        Console().print(table)
    folder = out / target.folder
    write(folder / "longcontext.json", cells, {"model": target.fingerprint, "dtype": chosen.value})
    typer.echo(folder / "longcontext.json")
    if each:
        draw(folder / "longcontext.png", cells)
        typer.echo(folder / "longcontext.png")


@eval.command()
def layers(
    model: Annotated[Path, typer.Argument(help="A run directory or a model directory.")],
    budget: Annotated[int, typer.Option(min=8, help="Tokens that a row reads.")] = 128,
    length: Annotated[int, typer.Option(min=64, help="Tokens of the prompts.")] = 1024,
    needles: Annotated[int, typer.Option(min=1, help="Of even depths.")] = 20,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    save: Annotated[bool, typer.Option(help="Store the best with the model.")] = True,
) -> None:
    """Find the layer in which tokens are best chosen anew (mode tidal), by needles."""
    from selenite import runtime
    from selenite.eval.longcontext.layers import Trial, save_layers, sweep
    from selenite.serve.attention_mode import LAYERS

    runtime.apply_threads()
    chosen = _dtype(dtype)

    def show(trial: Trial) -> None:
        name = " and ".join(map(str, trial.layers)) or "full attention"
        typer.echo(f"{name}: {trial.loss:.3f} nats a token, {trial.found} of {needles} found")

    trials = sweep(model, runtime.torch_dtype(chosen.value), budget, length, needles, watch=show)
    best = min(trials[1:], key=lambda trial: trial.loss)
    typer.echo(f"best: layers {' and '.join(map(str, best.layers))}")
    if save:
        save_layers(model, best.layers)
        typer.echo(model / LAYERS)


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
    from selenite.eval import parity

    if batch_invariant:
        runtime.enable_batch_invariant()
    runtime.apply_threads()
    chosen = _dtype(dtype)
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


def _dtype(name: str) -> Decision:
    """What a model is computed in. Raises ``ConfigError`` for a name that is none of these."""
    from selenite import runtime
    from selenite.errors import ConfigError

    if name not in ("auto", "bfloat16", "float32"):
        raise ConfigError(f"--dtype {name}: must be auto, bfloat16 or float32")
    return runtime.choose_dtype(name)  # type: ignore[arg-type]
