"""How a run went, for a terminal: ``selenite rl show RUN``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from selenite.log import CONSOLE
from selenite.rl import journal
from selenite.rl.rollout import Rollout
from selenite.rl.run_metrics import TIMES, evenly, read_steps, time_split

_COLUMNS = {
    "truncated": "cut",
    "degenerate": "same",
    "failed": "failed",
    "length": "tokens",
    "entropy": "entropy",
    "rho": "rho",
    "stale": "stale",
    "mismatch_max": "mismatch",
}
"""Metrics, and how a column is headed. Rewards come before."""
_LONGEST = 1500  # characters of a message


def show(run: Path, rows: int, rollouts: int) -> None:
    """Prints metrics of ``rows`` steps, and ``rollouts`` of the best and of the worst attempts of
    the last step. Raises ``DataError`` for a directory without them."""
    steps = read_steps(run)
    trained = [step for step in steps if "rollouts" in step]
    CONSOLE.print(_table(trained, rows))
    evaluated = [step for step in steps if any(name.startswith("val_") for name in step)]
    CONSOLE.print(_evaluations(evaluated, rows))
    CONSOLE.print(_time(trained))
    files = journal.steps(run)
    if files and rollouts:
        last = [rollout for group in journal.read(files[-1]) for rollout in group]
        last.sort(key=lambda rollout: -rollout.reward)
        chosen = {id(rollout): rollout for rollout in (*last[:rollouts], *last[-rollouts:])}
        for rollout in chosen.values():
            CONSOLE.print(_panel(rollout))


def _table(steps: Sequence[Mapping[str, Any]], rows: int) -> Table:
    rewards = sorted({name for step in steps for name in step if name.startswith("reward.")})
    heads = ("step", *(name.removeprefix("reward.") for name in rewards), *_COLUMNS.values())
    table = _narrow(heads)
    for step in evenly(steps, rows):
        cells = [_number(step.get(name)) for name in (*rewards, *_COLUMNS)]
        table.add_row(str(step["step"]), *cells)
    return table


def _evaluations(steps: Sequence[Mapping[str, Any]], rows: int) -> Table:
    names = sorted({name for step in steps for name in step if name.startswith("val_")})
    table = _narrow(("step", *(name.removeprefix("val_") for name in names)), title="held out")
    for step in evenly(steps, rows):
        table.add_row(str(step["step"]), *(_number(step.get(name)) for name in names))
    return table


def _narrow(heads: Sequence[str], title: str | None = None) -> Table:
    """A table of numbers whose heads are folded before a number is cut."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=0)
    for head in heads:
        table.add_column(head.replace(".", ".\n"), justify="right", overflow="fold", min_width=5)
    return table


def _time(steps: Sequence[Mapping[str, Any]]) -> str:
    """What the clock went to, of all steps."""
    splits = [time_split(step) for step in steps]
    parts = {name: sum(split[name] for split in splits) for name in TIMES}
    total = sum(parts.values())
    shares = ", ".join(
        f"{name} {seconds / max(total, 1e-9):.0%}" for name, seconds in parts.items()
    )
    return f"{total:,.0f} s: {shares}"


def _panel(rollout: Rollout) -> Panel:
    lines = []
    for message in rollout.messages:
        calls = [f"{call.name} {call.arguments}" for call in message.tool_calls]
        text = "\n".join(part for part in (message.content, *calls) if part)
        lines.append(f"[bold]{message.role}[/bold] {escape(text[:_LONGEST])}")
    checks = () if rollout.score is None else rollout.score.checks
    lost = [f"{check.name}: {check.reason}" for check in checks if check.value < 1]
    lines.append(escape("\n".join(lost) or rollout.reason or "all checks hold"))
    head = f"{rollout.environment} {rollout.task}, attempt {rollout.number}: {rollout.reward:.2f}"
    return Panel("\n\n".join(lines), title=f"{head} ({rollout.status.value})")


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.2g}"
