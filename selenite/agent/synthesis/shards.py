"""A shard: the trajectories of a range of tasks, judged, in two compressed files and their tally.

A shard follows from its range alone. Its tally is written last, so that what was interrupted is
made again and what is there is never made twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.agent.episodes.defects import Defect
from selenite.agent.episodes.episode import play_script
from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges.verdict import judge
from selenite.agent.randomness import stream
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.splits import split_of
from selenite.agent.tasks.author import make_task
from selenite.errors import MissingExtraError


@dataclass
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


def make_shard(config: SynthesisConfig, domains: Sequence[int], number: int) -> Tally:
    """Makes a shard, unless it is there."""
    known = tally_path(config, number)
    if known.exists():
        return Tally(**json.loads(known.read_text(encoding="utf-8")))
    tally = Tally(number)
    good, bad = [], []
    first = number * config.shard_tasks
    for task_number in range(first, min(first + config.shard_tasks, config.tasks)):
        trajectory = _good(config, domains, task_number, tally)
        if trajectory is not None:
            good.append(_row(trajectory))
        contrast = _contrast(config, domains, task_number, tally)
        if contrast is not None:
            bad.append(_row(contrast))
    for folder, rows in (("shards", good), ("contrasts", bad)):
        name = f"{folder}/{number:05d}.jsonl.zst"
        write_rows(config.out_dir / name, rows)
        tally.sha256[name] = atomic.sha256(config.out_dir / name)
    atomic.write_text(known, json.dumps(vars(tally), indent=1))
    return tally


def _good(
    config: SynthesisConfig, domains: Sequence[int], number: int, tally: Tally
) -> Trajectory | None:
    task = make_task(config.seed, number, domains, config.tasks_per_domain)
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


def _contrast(
    config: SynthesisConfig, domains: Sequence[int], number: int, tally: Tally
) -> Trajectory | None:
    rng = stream(config.seed, "contrast", number)
    if rng.random() >= config.contrasts:
        return None
    task = make_task(config.seed, number, domains, config.tasks_per_domain)
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


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines, compressed; the same rows make the same bytes."""
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingExtraError("zstandard", "agent", "compressed trajectories") from error
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(zstandard.ZstdCompressor(level=6).compress(text.encode()))
    part.replace(path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file."""
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingExtraError("zstandard", "agent", "compressed trajectories") from error
    text = zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode()
    yield from map(json.loads, text.splitlines())
