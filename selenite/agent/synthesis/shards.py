"""A shard: the trajectories of a range of tasks, judged, in two compressed files and their tally.

A shard follows from its range alone. Its tally is written last and proves the two files, so that
what was interrupted or altered is made again and what is there is never made twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from selenite import atomic
from selenite.agent.episodes.defects import Defect
from selenite.agent.episodes.episode import play_script
from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges.verdict import judge
from selenite.agent.randomness import stream
from selenite.agent.rows import broken, write_rows
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.splits import split_of
from selenite.agent.tasks.author import make_task
from selenite.agent.tasks.task import Task
from selenite.errors import DataError

T = TypeVar("T")


@dataclass(config=ConfigDict(extra="forbid"))  # it is read from a file, too
class Tally:
    """What came of a shard. Contrasts are counted by defect and by who objected ("": nobody)."""

    number: int
    tasks: int = 0
    kept: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)  # by judge
    contrasts: dict[str, dict[str, int]] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)  # by file

    def add(self, other: Tally) -> None:
        """Takes another shard's counts in."""
        self.tasks += other.tasks
        self.kept += other.kept
        for mine, theirs in ((self.classes, other.classes), (self.rejected, other.rejected)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        for defect, reasons in other.contrasts.items():
            own = self.contrasts.setdefault(defect, {})
            for reason, count in reasons.items():
                own[reason] = own.get(reason, 0) + count
        self.sha256 |= other.sha256


def num_shards(config: SynthesisConfig) -> int:
    """Of a corpus."""
    return -(-config.tasks // config.shard_tasks)


def tally_path(config: SynthesisConfig, number: int) -> Path:
    """Of a shard; it is there when the shard is."""
    return config.out_dir / "shards" / f"{number:05d}.json"


def rows_names(number: int) -> tuple[str, str]:
    """The files of a shard in a corpus: trajectories, and contrasts."""
    return f"shards/{number:05d}.jsonl.zst", f"contrasts/{number:05d}.jsonl.zst"


def known_shard(config: SynthesisConfig, number: int) -> Tally | None:
    """The tally of a shard whose files are as it says; None: the shard has to be made."""
    try:
        tally = read_json(tally_path(config, number), Tally)
        digests = {name: atomic.sha256(config.out_dir / name) for name in rows_names(number)}
    except (DataError, OSError):
        return None
    return tally if tally.sha256 == digests else None


def make_shard(config: SynthesisConfig, domains: Sequence[int], number: int) -> Tally:
    """Makes a shard, unless it is there."""
    known = known_shard(config, number)
    if known is not None:
        return known
    tally = Tally(number)
    good, bad = [], []
    first = number * config.shard_tasks
    for task_number in range(first, min(first + config.shard_tasks, config.tasks)):
        task = make_task(config.seed, task_number, domains, config.tasks_per_domain)
        trajectory = _good(task, tally)
        if trajectory is not None:
            good.append(_row(trajectory))
        contrast = _contrast(task, config, tally)
        if contrast is not None:
            bad.append(_row(contrast))
    for name, rows in zip(rows_names(number), (good, bad), strict=True):
        tally.sha256[name] = write_rows(config.out_dir / name, rows)
    atomic.write_text(tally_path(config, number), json.dumps(vars(tally), indent=1))
    return tally


def _good(task: Task, tally: Tally) -> Trajectory | None:
    trajectory = play_script(task)
    assert trajectory is not None, task.id
    verdict = judge(trajectory)
    tally.tasks += 1
    tally.classes[task.cls.value] = tally.classes.get(task.cls.value, 0) + 1
    if not verdict.passes:
        tally.rejected[verdict.reason] = tally.rejected.get(verdict.reason, 0) + 1
        return None
    tally.kept += 1
    return trajectory


def _contrast(task: Task, config: SynthesisConfig, tally: Tally) -> Trajectory | None:
    rng = stream(config.seed, "contrast", task.number)
    if rng.random() >= config.contrasts:
        return None
    for defect in rng.sample([*Defect], len(Defect)):
        trajectory = play_script(task, defect)
        if trajectory is not None:
            reasons = tally.contrasts.setdefault(defect.value, {})
            reason = judge(trajectory).reason
            reasons[reason] = reasons.get(reason, 0) + 1
            return trajectory
    return None


def _row(trajectory: Trajectory) -> dict[str, Any]:
    return {"split": split_of(trajectory), **trajectory.record()}


def read_json(path: Path, form: type[T]) -> T:
    """A JSON file as a type that pydantic knows; raises ``DataError`` where it cannot be."""
    try:
        return TypeAdapter(form).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        raise broken(path, error) from error
