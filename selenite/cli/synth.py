"""``selenite synth``: make agentic data from a seed, and look at it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

synth = typer.Typer(
    no_args_is_help=True, help="Worlds with tools, tasks and trajectories, from a seed."
)


@synth.command()
def make(
    config: Annotated[Path, typer.Argument(help="TOML file, such as configs/agentic.toml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings on top: tasks=1000 out_dir=runs/corpus")
    ] = None,
) -> None:
    """Make a corpus, or go on where an earlier call was interrupted."""
    from selenite.agent.synthesis.config import SynthesisConfig
    from selenite.agent.synthesis.dashboard import Dashboard
    from selenite.agent.synthesis.pipeline import synthesize
    from selenite.agent.workers import leaving_at_once
    from selenite.clock import SystemClock
    from selenite.config import load

    settings = load(SynthesisConfig, config, overrides or [])
    with leaving_at_once(), Dashboard(sys.stderr.isatty(), SystemClock()) as dashboard:
        manifest = synthesize(settings, dashboard.show)
    turns = -(-settings.tasks // settings.tasks_per_domain)
    typer.echo(
        f"{settings.out_dir}: {manifest['trajectories']:,} trajectories of {manifest['tasks']:,} "
        f"tasks in {min(turns, manifest['domains']):,} of {manifest['domains']:,} domains"
    )
    for role, counts in manifest["models"]["roles"].items():
        if not counts["accepted"]:
            typer.echo(f"warning: {role}: nothing that its models gave is of use", err=True)


@synth.command()
def dataset(
    config: Annotated[Path, typer.Argument(help="TOML file, such as configs/smollm2-data.toml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings on top: functions=1000 out_dir=runs/data")
    ] = None,
) -> None:
    """Make all that a recipe of selenite sft learns from, as chat JSON lines."""
    from selenite.agent.synthesis.dashboard import Dashboard
    from selenite.agent.synthesis.dataset import DatasetConfig, make_dataset
    from selenite.agent.workers import leaving_at_once
    from selenite.clock import SystemClock
    from selenite.config import load

    settings = load(DatasetConfig, config, overrides or [])
    with leaving_at_once(), Dashboard(sys.stderr.isatty(), SystemClock()) as dashboard:
        manifest = make_dataset(settings, dashboard.show)
    for name, count in manifest["counts"].items():
        typer.echo(f"{settings.out_dir / name}.jsonl: {count:,} conversations")


@synth.command()
def show(
    corpus: Annotated[Path, typer.Argument(help="The folder of a corpus.")],
    name: Annotated[str, typer.Argument(help="A domain (commerce-0004) or a trajectory (7-123).")],
    html: Annotated[Path | None, typer.Option(help="Write one HTML page here instead.")] = None,
) -> None:
    """Show a world with its tools, or a trajectory with its task."""
    from selenite.agent.synthesis.show import show as run

    run(corpus, name, html)
    if html is not None:
        typer.echo(html)


@synth.command()
def export(
    corpus: Annotated[Path, typer.Argument(help="The folder of a corpus.")],
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    form: Annotated[str, typer.Option(help="chat, tokens or parquet.")] = "chat",
    split: Annotated[
        str | None, typer.Option(help="train, or one that is held out; all where none is given.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Of tokens: a model directory with a chat template.")
    ] = None,
) -> None:
    """Write trajectories as chat JSON lines, as parquet, or as token ids with a loss mask."""
    from selenite.agent.synthesis.export import export as run
    from selenite.agent.synthesis.pipeline import trajectories

    count = run(trajectories(corpus, split), file, form, tokenizer)
    typer.echo(f"{file}: {count:,} trajectories")


@synth.command()
def report(
    corpus: Annotated[Path, typer.Argument(help="The folder of a corpus.")],
    real: Annotated[
        Path | None,
        typer.Option(help="JSON list of real tools in OpenAI's form, to compare those here with."),
    ] = None,
) -> None:
    """Measure how diverse a corpus is: report.json and report.html in its folder."""
    from selenite.agent.synthesis.diversity import PAGE, REPORT, write_report

    counts = write_report(corpus, real)["counts"]
    typer.echo(
        f"{counts['trajectories']:,} trajectories; {counts['tools']:,} tools with "
        f"{counts['signatures']:,} signatures in {counts['domains']:,} domains of "
        f"{counts['categories']:,} categories"
    )
    typer.echo(corpus / REPORT)
    typer.echo(corpus / PAGE)


@synth.command()
def leaks(
    corpus: Annotated[
        Path, typer.Argument(help="The folder of a corpus or of a data set, or a file of chats.")
    ],
    against: Annotated[
        list[Path], typer.Option(help="A benchmark's file or folder; give it once for each.")
    ],
) -> None:
    """Look for a benchmark's texts, tools and solutions in a corpus; exit with 1 if there are."""
    from selenite.agent.synthesis.leaks import write_leaks

    found, path = write_leaks(corpus, against)
    for line in found.lines():
        typer.echo(line)
    typer.echo(path)
    if found.num_fatal:
        raise typer.Exit(1)
