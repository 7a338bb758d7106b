"""``selenite pretrain CONFIG [key=value ...]``: train a model from a config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    config: Annotated[Path, typer.Argument(help="TOML file, such as configs/nano.toml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings on top: optim.lr=3e-3 train.steps=100")
    ] = None,
) -> None:
    """Train a model, or go on where an earlier call of the same command was interrupted."""
    from selenite.clock import SystemClock
    from selenite.config import load
    from selenite.train.pretrain import PretrainConfig
    from selenite.train.pretrain import pretrain as run
    from selenite.train.run import finished_summary, summary_lines

    settings = load(PretrainConfig, config, overrides or [])
    out_dir = settings.train.out_dir
    summary = finished_summary(settings, settings.train)
    if summary is not None:
        typer.echo(f"{out_dir} is finished: {summary.steps:,} steps are done")
    else:
        outcome, summary = run(settings, SystemClock())
        if summary is None:
            again = settings.train.resume == "latest" or outcome.step == 0
            typer.echo(
                f"stopped after step {outcome.step:,} of {settings.train.num_steps:,}; "
                + ("the same command goes" if again else "with train.resume=latest it goes")
                + " on from here"
            )
            raise typer.Exit(outcome.exit_code)
    for line in summary_lines(summary, out_dir):
        typer.echo(line)
