"""``selenite rl CONFIG [key=value ...]``: let a model act, and learn from what it earns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def rl(
    config: Annotated[Path, typer.Argument(help="TOML file, such as configs/nano-rl.toml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings on top: objective.tau=0.3 train.steps=50")
    ] = None,
) -> None:
    """Teach a model by reinforcement, or go on where an earlier call was interrupted."""
    from selenite.clock import SystemClock
    from selenite.config import load
    from selenite.rl.config import RlConfig
    from selenite.rl.run import rl as run
    from selenite.train.run import finished_summary, summary_lines

    settings = load(RlConfig, config, overrides or [])
    out_dir = settings.train.out_dir
    summary = finished_summary(settings, settings.train)
    if summary is not None:
        typer.echo(f"{out_dir} is finished: {summary.steps:,} steps are done")
    else:
        outcome, summary = run(settings, SystemClock())
        if summary is None:
            typer.echo(
                f"stopped after step {outcome.step:,} of {settings.train.num_steps:,}; the same "
                "command goes on from here"
            )
            raise typer.Exit(outcome.exit_code)
    for line in summary_lines(summary, out_dir):
        typer.echo(line)
