"""``selenite rephrase CONFIG [key=value ...]``: text for pre-training in other words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def rephrase(
    config: Annotated[Path, typer.Argument(help="TOML file, such as configs/rephrase.toml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings on top: rounds=1 out_dir=runs/rephrased")
    ] = None,
) -> None:
    """Rephrase documents, or go on where an earlier call was interrupted."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from selenite.agent.rephrasing.config import RephrasingConfig
    from selenite.agent.rephrasing.pipeline import rephrase as run
    from selenite.agent.rephrasing.tally import Tally
    from selenite.agent.workers import leaving_at_once
    from selenite.clock import SystemClock
    from selenite.config import load
    from selenite.log import CONSOLE

    settings = load(RephrasingConfig, config, overrides or [])
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[outcome]}"),
    )
    with leaving_at_once(), Progress(*columns, console=CONSOLE) as bars:
        tasks = {
            stage: bars.add_task(stage, total=None, outcome="") for stage in ("documents", "shards")
        }

        def watch(stage: str, done: int, total: int, tally: Tally) -> None:
            outcome = f"{tally.kept:,} of {tally.rephrasings:,} kept" if tally.rephrasings else ""
            bars.update(tasks[stage], completed=done, total=total or None, outcome=outcome)

        manifest = run(settings, SystemClock(), watch)
        for task in tasks.values():
            bars.update(task, total=bars.tasks[task].completed)
    dropped = ", ".join(f"{name} {number:,}" for name, number in manifest["dropped"].items())
    typer.echo(
        f"{settings.out_dir}: {manifest['kept']:,} of {manifest['rephrasings']:,} rephrasings "
        f"({manifest['chars_out']:,} characters of {manifest['chars_in']:,}); "
        f"dropped: {dropped or 'none'}"
    )
