"""A model in our own worlds, beside the floors and the oracle: ``selenite eval worlds``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from selenite import atomic
from selenite.agent.models.config import EndpointConfig
from selenite.agent.roles.config import PartConfig, RolesConfig
from selenite.agent.roles.roles import open_roles
from selenite.agent.synthesis.config import sources_digest
from selenite.client.endpoint import Endpoint
from selenite.errors import DataError
from selenite.eval.measure import Target, serving
from selenite.eval.worlds import FLOORS, Case, Episode, run, summary
from selenite.log import CONSOLE

_KEY = "SELENITE_EVAL_KEY"  # environment variable with the key of the server that is asked
ORACLE = "oracle"
_MOST_ERRORS = 0.005  # share of the episodes


def bounds(known: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """What the floors and the oracle achieve, by axis."""
    agents = {**FLOORS, ORACLE: None}
    return {name: summary(run(known, 1, make=make), 1) for name, make in agents.items()}


def measure_worlds(
    known: Sequence[Case],
    target: Target,
    out: Path,
    trials: int,
    temperature: float,
    guided: bool,
    concurrency: int,
    max_tokens: int,
) -> tuple[dict[str, Any], list[Episode]]:
    """What the target achieves, by axis, and every episode.

    Answers are kept in ``out`` by the model's fingerprint, so that a run that was interrupted goes
    on. Raises ``DataError`` where the pipeline fails in more than one episode of 200.
    """
    folder = out / target.folder / "worlds"
    with serving(target, concurrency) as (endpoint, model):
        config = _roles(endpoint, model, folder, temperature, guided, concurrency, max_tokens)
        with (
            open_roles(config, seed=0) as roles,
            Progress(console=CONSOLE, transient=True) as progress,
        ):
            bar = progress.add_task(f"worlds: {target.title}", total=len(known) * trials)
            episodes = run(
                known, trials, concurrency, roles, on_episode=partial(progress.advance, bar)
            )
    faults = [episode.error for episode in episodes if episode.error]
    if len(faults) > _MOST_ERRORS * len(episodes):
        raise DataError(
            f"the pipeline failed in {len(faults)} of {len(episodes)} episodes ({faults[0]}), so "
            "there is no score; call the same command again"
        )
    return summary(episodes, trials), episodes


def _roles(
    endpoint: Endpoint,
    model: str,
    cache: Path,
    temperature: float,
    guided: bool,
    at_once: int,
    max_tokens: int,
) -> RolesConfig:
    """The agent is the model, all else code."""
    if endpoint.api_key is not None:
        os.environ[_KEY] = endpoint.api_key
    config = EndpointConfig(
        base_url=endpoint.path("/v1"),
        model=model,
        api_key_env="" if endpoint.api_key is None else _KEY,
        at_once=at_once,
        timeout=1800.0,
        extra={} if guided else {"constrain_calls": False},
    )
    part = PartConfig(endpoint="agent", temperature=temperature, max_tokens=max_tokens, repairs=0)
    return RolesConfig(endpoints={"agent": config}, cache_dir=cache, agent=(part,))


def table(results: Mapping[str, Mapping[str, Any]], trials: int) -> Table:
    """For people: pass^1 with its interval, and pass^k of all trials."""
    shown = Table("axis", "tasks", *results, title="worlds, pass^1")
    axes = list(next(iter(results.values())))
    for axis in axes:
        cells = []
        for name, found in results.items():
            own = found[axis]
            share = own["pass^k"]
            text = f"{share[0]:.3f}" if share else "-"
            if share and name not in (*FLOORS, ORACLE):
                text += f" ({own['low']:.3f}-{own['high']:.3f})"
            if len(share) > 1:
                text += f", pass^{trials} {share[-1]:.3f}"
            cells.append(text)
        tasks = max(found[axis]["tasks"] for found in results.values())
        shown.add_row(axis, str(tasks), *cells)
    return shown


def write(
    path: Path,
    results: Mapping[str, Mapping[str, Any]],
    protocol: Mapping[str, Any],
    episodes: Mapping[str, Sequence[Episode]],
) -> None:
    """All of it as JSON. ``episodes`` are those of each model."""
    record = {
        "suite": "worlds",
        "version": f"sources {sources_digest()[:12]}",
        "protocol": dict(protocol),
        "agents": {name: dict(found) for name, found in results.items()},
        "episodes": {name: [asdict(each) for each in found] for name, found in episodes.items()},
    }
    atomic.write_text(path, json.dumps(record, indent=1) + "\n")
