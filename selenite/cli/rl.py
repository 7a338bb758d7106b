"""``selenite rl run CONFIG``: learn from what is earned; ``rl show``, ``rl page RUN``: see how.

``rl lessons CONFIG FILE`` writes what a model can be taught before it acts, ``rl measure CONFIG``
tells what one earns without learning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

rl = typer.Typer(no_args_is_help=True, help="Let a model act, and learn from what it earns.")


@rl.command()
def run(
    config: Annotated[Path, typer.Argument(help="TOML file, as docs/rl.md has them.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings on top: objective.tau=0.3 train.steps=50")
    ] = None,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="The engines (rollouts.engines) are actors of Ray's."),
    ] = False,
) -> None:
    """Teach a model by reinforcement, or go on where an earlier call was interrupted."""
    from selenite.clock import SystemClock
    from selenite.config import load
    from selenite.rl.config import RlConfig
    from selenite.rl.run import rl as learn
    from selenite.rl.run_metrics import held_out_rewards
    from selenite.train.run import finished_summary, summary_lines

    extra = ["rollouts.ray=true"] if ray else []
    settings = load(RlConfig, config, [*(overrides or []), *extra])
    out_dir = settings.train.out_dir
    summary = finished_summary(settings, settings.train)
    if summary is not None:
        typer.echo(f"{out_dir} is finished: {summary.steps:,} steps are done")
    else:
        outcome, summary = learn(settings, SystemClock())
        if summary is None:
            typer.echo(
                f"stopped after step {outcome.step:,} of {settings.train.num_steps:,}; the same "
                "command goes on from here"
            )
            raise typer.Exit(outcome.exit_code)
    for name, (before, after) in held_out_rewards(out_dir).items():
        typer.echo(f"held-out reward of {name}: {before:.3f} before, {after:.3f} after")
    for line in summary_lines(summary, out_dir):
        typer.echo(line)


@rl.command()
def lessons(
    config: Annotated[Path, typer.Argument(help="TOML file, as docs/rl.md has them.")],
    out: Annotated[Path, typer.Argument(help="JSON lines to write, for selenite sft.")],
    tasks: Annotated[int, typer.Option(min=1, help="Of each environment.")] = 1000,
) -> None:
    """Write conversations in which environments do their own tasks, none of them a run's."""
    from selenite.config import load
    from selenite.rl.config import RlConfig
    from selenite.rl.lessons import write_lessons

    count = write_lessons(load(RlConfig, config, []).environments, tasks, out)
    typer.echo(f"{out}: {count:,} conversations")


@rl.command()
def measure(
    config: Annotated[Path, typer.Argument(help="TOML file, as docs/rl.md has them.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings on top: train.init_from=MODEL evaluation.tasks=100"),
    ] = None,
) -> None:
    """Print what a model (train.init_from) earns in held-out tasks, without learning from them."""
    from selenite.clock import SystemClock
    from selenite.config import load
    from selenite.eval.statistics import mean_interval
    from selenite.rl.config import RlConfig
    from selenite.rl.measure import measure as attempted

    settings = load(RlConfig, config, overrides or [])
    for measured in attempted(settings, SystemClock()):
        rewards = measured.rewards
        failed = f", {measured.failed} failed" if measured.failed else ""
        low, high = mean_interval(rewards)
        typer.echo(
            f"{settings.train.init_from}: {measured.environment} "
            f"{sum(rewards) / max(1, len(rewards)):.3f} ({low:.3f} to {high:.3f}) "
            f"of {len(rewards)} held-out attempts{failed}"
        )


@rl.command()
def show(
    run: Annotated[Path, typer.Argument(help="Directory of a run.")],
    rows: Annotated[int, typer.Option(min=1, help="Steps of the table, evenly apart.")] = 20,
    rollouts: Annotated[
        int, typer.Option(min=0, help="Attempts of the last step, best and worst, in full.")
    ] = 2,
) -> None:
    """Print how a run went: rewards, lengths, staleness, where time goes, and attempts in full."""
    from selenite.rl.show import show as print_run

    print_run(run, rows, rollouts)


@rl.command()
def page(
    run: Annotated[Path, typer.Argument(help="Directory of a run.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; page.html in the run's directory.")
    ] = None,
) -> None:
    """Write a page for a browser: how a run went, and its attempts side by side over training."""
    from selenite.rl.page.write import write_page

    file = run / "page.html" if out is None else out
    attempts = write_page(run, file)
    typer.echo(
        f"{file}: {len(attempts.records):,} attempts of {len(attempts.steps):,} of "
        f"{attempts.num_iterations:,} iterations, {file.stat().st_size / 1e6:.1f} MB"
    )
