"""What was measured on tau2, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from selenite import atomic
from selenite.eval.tau2.episode import Episode
from selenite.eval.tau2.process import TAU2
from selenite.eval.tau2.run import GOLD, NULL, lift, summary


@dataclass(frozen=True)
class Measured:
    """A domain, and each agent's episodes."""

    domain: str
    split: str
    left_out: tuple[str, ...]  # tasks that tau2 itself fails on
    episodes: Mapping[str, Sequence[Episode]]  # by agent

    def summaries(self, trials: int) -> dict[str, dict[str, Any]]:
        """By agent, with its lift over doing nothing."""
        found = {
            name: summary(own, 1 if name in (NULL, GOLD) else trials)
            for name, own in self.episodes.items()
        }
        floor = _share(found[NULL])
        return {name: {**own, "lift": lift(_share(own), floor)} for name, own in found.items()}


def _share(found: Mapping[str, Any]) -> float:
    return float(found["pass^k"][0]) if found["pass^k"] else 0.0


def headline(all_measured: Sequence[Measured], agent: str, trials: int) -> float | None:
    """The mean lift over domains; None where no domain is left. Airline is in none, since most of
    its tasks are solved by doing nothing, nor is mock."""
    lifts = [
        measured.summaries(trials)[agent]["lift"]
        for measured in all_measured
        if measured.domain not in ("airline", "mock") and agent in measured.episodes
    ]
    return sum(lifts) / len(lifts) if lifts else None


def table(all_measured: Sequence[Measured], mode: str, trials: int) -> Table:
    """For people: pass^1 with its interval, and lift."""
    names = list(all_measured[0].episodes)
    title = f"tau2 ({TAU2.title}), user: {mode}, pass^1"
    shown = Table("domain", "tasks", *names, "lift", "too long", "errors", title=title)
    for measured in all_measured:
        found = measured.summaries(trials)
        models = [name for name in names if name not in (NULL, GOLD)]
        cells = [_cell(name, found[name], trials) for name in names]
        own = found[models[0]] if models else None
        extra = (
            [f"{own['lift']:.3f}", str(own["too_long"]), str(own["errors"])] if own else ["-"] * 3
        )
        left = f" (-{len(measured.left_out)})" if measured.left_out else ""
        title = f"{measured.domain}, {measured.split}"
        shown.add_row(title, f"{found[NULL]['tasks']}{left}", *cells, *extra)
    return shown


def _cell(name: str, found: Mapping[str, Any], trials: int) -> str:
    text = f"{_share(found):.3f}" if found["tasks"] else "-"
    if name not in (NULL, GOLD) and found["tasks"]:
        text += f" ({found['low']:.3f}-{found['high']:.3f})"
        if trials > 1:
            text += f", pass^{trials} {found['pass^k'][-1]:.3f}"
        if found["user_faults"]:
            text += f", user at fault in {found['user_fault_share']:.3f}"
    return text


def write(
    path: Path,
    all_measured: Sequence[Measured],
    protocol: Mapping[str, Any],
    trials: int,
) -> None:
    """All of it as JSON."""
    record = {
        "suite": "tau2",
        "version": TAU2.title,
        "protocol": dict(protocol),
        "domains": {
            measured.domain: {
                "split": measured.split,
                "left_out": list(measured.left_out),
                "agents": measured.summaries(trials),
                "episodes": {
                    name: [asdict(episode) for episode in own]
                    for name, own in measured.episodes.items()
                },
            }
            for measured in all_measured
        },
    }
    atomic.write_text(path, json.dumps(record, indent=1) + "\n")
