"""Our own worlds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selenite.cli.eval.targets import (
    Base,
    Concurrency,
    Key,
    MaxTokens,
    Model,
    Name,
    Out,
    Remote,
    Tag,
    Url,
    targets_of,
)

if TYPE_CHECKING:
    from selenite.eval.worlds import Episode


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

    targets = targets_of(directory, url, api_key, model, allow_remote, tag, base)
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
