"""What a run measured, step by step, for ``show.py`` (a terminal) and ``page/`` (a browser)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from selenite.errors import DataError, StorageError
from selenite.train.summary import read_metrics

Item = TypeVar("Item")
TIMES = ("generating", "tools", "scoring", "training", "syncing")


def read_steps(run: Path) -> list[dict[str, Any]]:
    """The rows of a run: its updates, and the evaluation before the first one.

    Raises ``DataError`` for a directory that is no run of reinforcement learning.
    """
    try:
        steps = read_metrics(run)
        is_run = any("rollouts" in step for step in steps)
    except (StorageError, TypeError) as error:
        raise DataError(f"{run}: no run ({error}); give the directory of one") from error
    if not is_run:
        raise DataError(
            f"{run}: no steps of reinforcement learning; give a directory that selenite rl run made"
        )
    return steps


def held_out_rewards(run: Path) -> dict[str, tuple[float, float]]:
    """Of each environment the mean reward in held-out tasks, before the first update and after the
    last one. Raises as ``read_steps``."""
    found: dict[str, tuple[float, float]] = {}
    for step in read_steps(run):
        for key, value in step.items():
            kind, _, name = key.partition(".")
            if kind == "val_reward":
                found[name] = (found[name][0] if name in found else value, value)
    return found


def time_split(step: Mapping[str, Any]) -> dict[str, float]:
    """What the clock went to in a step, in seconds, by the names of ``TIMES``.

    Many attempts run at once, each with seconds of its own: the time that the step waited for them
    is divided in the proportion of these.
    """
    acting, syncing = step.get("rollout_seconds", 0.0), step.get("sync_seconds", 0.0)
    spent = {kind: step.get(f"seconds.{kind}", 0.0) for kind in TIMES[:3]}
    total = sum(spent.values())
    shares = {kind: seconds / total if total else 0.0 for kind, seconds in spent.items()}
    training = max(0.0, step.get("seconds", 0.0) - acting - syncing)
    return {
        **{kind: acting * share for kind, share in shares.items()},
        "training": training,
        "syncing": syncing,
    }


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """The first, the last, and what lies evenly between: ``count`` items at most."""
    if len(items) <= count:
        return list(items)
    places = sorted({round(i * (len(items) - 1) / max(1, count - 1)) for i in range(count)})
    return [items[place] for place in places]
