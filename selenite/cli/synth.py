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
    from selenite.clock import SystemClock
    from selenite.config import load

    settings = load(SynthesisConfig, config, overrides or [])
    with Dashboard(sys.stderr.isatty(), SystemClock()) as dashboard:
        manifest = synthesize(settings, dashboard.show)
    typer.echo(
        f"{settings.out_dir}: {manifest['trajectories']:,} trajectories of {manifest['tasks']:,} "
        f"tasks in {manifest['domains']:,} domains"
    )
