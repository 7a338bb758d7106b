"""A shard: the trajectories of a range of tasks, judged, in two compressed files and their tally.

A shard follows from its range alone. Its tally is written last and proves the two files, so that
what was interrupted or altered is made again and what is there is never made twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from selenite import atomic
from selenite.agent.episodes.defects import Defect
from selenite.agent.episodes.episode import play_script
from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges.verdict import Verdict, judge
from selenite.agent.randomness import stream
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import judge_roles, play_roles
from selenite.agent.roles.roles import open_roles
from selenite.agent.rows import broken, write_rows
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.splits import split_of
from selenite.agent.tasks.author import make_task
from selenite.agent.tasks.task import Task
from selenite.agent.workers import threads
from selenite.errors import DataError, EndpointError

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where the tasks of a corpus take place."""

    domains: Sequence[int]  # numbers of those that were admitted
    extension: str  # of their archetypes


@checked_dataclass(config=ConfigDict(extra="forbid"))  # it is read from a file, too
class Tally:
    """What came of a shard. Contrasts are counted by defect and by who objected ("": nobody)."""

    number: int
    extension: str = ""  # of the archetypes that its domains evolved from
    tasks: int = 0
    kept: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)  # by judge
    contrasts: dict[str, Counter[str]] = field(default_factory=dict)
    outcomes: Outcomes = field(default_factory=Outcomes)  # of what models were asked
    sha256: dict[str, str] = field(default_factory=dict)  # by file

    def add(self, other: Tally) -> None:
        """Takes another shard's counts in."""
        self.tasks += other.tasks
        self.kept += other.kept
        self.classes.update(other.classes)
        self.rejected.update(other.rejected)
        for defect, reasons in other.contrasts.items():
            self.contrasts.setdefault(defect, Counter()).update(reasons)
        self.outcomes.add(other.outcomes)
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


def known_shard(config: SynthesisConfig, extension: str, number: int) -> Tally | None:
    """The tally of a shard whose files are as it says; None: the shard has to be made."""
    try:
        tally = read_json(tally_path(config, number), Tally)
        digests = {name: atomic.sha256(config.out_dir / name) for name in rows_names(number)}
    except (DataError, OSError):
        return None
    is_whole = tally.sha256 == digests and tally.extension == extension
    return tally if is_whole else None


def make_shard(config: SynthesisConfig, place: Place, processes: int, number: int) -> Tally:
    """Makes a shard, unless it is there; one of some processes that make shards.

    Raises ``EndpointError``, and writes nothing, where endpoints fail for too many tasks: what is
    lost to them would not come back.
    """
    known = known_shard(config, place.extension, number)
    if known is not None:
        return known
    tally = Tally(number, place.extension)
    good, bad = [], []
    for played in _play(config, place, processes, number):
        _count(played, tally)
        if played.verdict.passes:
            good.append(_row(played.trajectory))
        contrast = _contrast(played.task, config, tally)
        if contrast is not None:
            bad.append(_row(contrast))
    for name, rows in zip(rows_names(number), (good, bad), strict=True):
        tally.sha256[name] = write_rows(config.out_dir / name, rows)
    atomic.write_bytes(tally_path(config, number), TypeAdapter(Tally).dump_json(tally, indent=1))
    return tally


@dataclass
class _Played:
    """A task, and what came of it."""

    task: Task
    trajectory: Trajectory
    verdict: Verdict
    outcomes: Outcomes


def _play(config: SynthesisConfig, place: Place, processes: int, number: int) -> Iterator[_Played]:
    """The tasks of a shard in their order. Where models are waited for, many at a time."""
    first = number * config.shard_tasks
    numbers = range(first, min(first + config.shard_tasks, config.tasks))
    at_once = config.roles.at_once(processes)
    with open_roles(config.roles, config.seed, processes) as roles, threads(at_once) as pool:

        def play_one(task_number: int) -> _Played:
            turn = config.tasks_per_domain
            task = make_task(
                config.seed,
                task_number,
                place.domains,
                turn,
                place.extension,
                config.classes,
                config.states,
                config.shares,
            )
            trajectory, outcomes = play_roles(task, roles, task_number)
            verdict, votes = judge_roles(trajectory, roles, task_number)
            outcomes.add(votes)
            return _Played(task, trajectory, verdict, outcomes)

        failed = 0
        for played in map(play_one, numbers) if at_once == 1 else pool.map(play_one, numbers):
            failed += played.outcomes.is_cut_off
            if failed > config.most_failed * len(numbers):
                last = roles.ledger.last_failure
                raise outage(f"shard {number}", failed, len(numbers), last)
            yield played


def outage(where: str, failed: int, due: int, last: str) -> EndpointError:
    """The error of endpoints that gave no reply for too much; ``last`` says why at last."""
    return EndpointError(
        f"{where}: endpoints failed for {failed} of {due} items (the last one: {last}); see to the "
        "endpoint and run the same command again, which goes on from here, or allow more with "
        "most_failed"
    )


def _count(played: _Played, tally: Tally) -> None:
    tally.tasks += 1
    tally.classes[played.task.cls.value] += 1
    tally.outcomes.add(played.outcomes)
    if played.verdict.passes:
        tally.kept += 1
    else:
        tally.rejected[played.verdict.reason] += 1


def _contrast(task: Task, config: SynthesisConfig, tally: Tally) -> Trajectory | None:
    rng = stream(config.seed, "contrast", task.number)
    if rng.random() >= config.contrasts:
        return None
    for defect in rng.sample([*Defect], len(Defect)):
        trajectory = play_script(task, defect)
        if trajectory is not None:
            tally.contrasts.setdefault(defect.value, Counter())[judge(trajectory).reason] += 1
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
