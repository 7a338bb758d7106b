"""The whole of a synthesis: repository, shards, duplicates, manifest.

    archetypes.json, if a model proposes some
      ▼
    repository.json ─► shards/*.jsonl.zst ─► duplicates.json ─► manifest.json
    tools.jsonl.zst    contrasts/*.jsonl.zst

Each file is there whole or not at all; a second call goes on from what is there. What is no longer
as it was written is made again; what other settings or sources made is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from selenite import atomic
from selenite.agent.ontology.acceptance import Repository, admit, examine
from selenite.agent.ontology.archetypes import extend
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.roles import open_roles
from selenite.agent.rows import read_rows, write_rows
from selenite.agent.synthesis.config import SynthesisConfig, sources_digest
from selenite.agent.synthesis.duplicates import Removed, find_duplicates
from selenite.agent.synthesis.extension import ARCHETYPES, Proposed, propose
from selenite.agent.synthesis.shards import (
    Place,
    Tally,
    known_shard,
    make_shard,
    num_shards,
    read_json,
    rows_names,
    tally_path,
)
from selenite.agent.synthesis.splits import SPLITS
from selenite.agent.tools.tool import signature
from selenite.agent.workers import processes
from selenite.agent.world.setting import known_domain
from selenite.errors import ConfigError, DataError, StorageError

_SETTINGS = "config.json"
_MANIFEST = "manifest.json"
_REPOSITORY = "repository.json"
_TOOLS = "tools.jsonl.zst"
_DUPLICATES = "duplicates.json"
_CHUNK = 4  # domains that a worker examines at once


@checked_dataclass(config=ConfigDict(extra="forbid"))
class _Manifest:
    """What a finished corpus is."""

    settings: dict[str, Any]
    sources: str  # the digest of the code that made it
    version: str
    domains: int
    tasks: int
    accepted: int
    trajectories: int
    classes: dict[str, int]
    rejected: dict[str, int]
    duplicates: dict[str, int]
    contrasts: dict[str, dict[str, int]]
    models: dict[str, Any]  # what came of what they were asked, by role
    sha256: dict[str, str]


@checked_dataclass
class _Proof:
    """Of a manifest of any version, which files there are."""

    sha256: dict[str, str]


@checked_dataclass(config=ConfigDict(extra="forbid"))
class Admitted:
    """The repository's file."""

    seed: int
    extension: str  # of the archetypes
    tried: int
    tools: int
    signatures: int
    rejected: dict[str, int]
    numbers: list[int]
    sha256: str  # of the tools


@dataclass(frozen=True)
class Progress:
    """How far a stage is."""

    stage: str
    done: int
    total: int
    repository: Repository | None = None
    tally: Tally | None = None
    outcomes: Outcomes | None = None  # of what models were asked

    @property
    def is_over(self) -> bool:
        return self.done == self.total and (self.stage != "repository" or bool(self.repository))


Watch = Callable[[Progress], None]


def synthesize(config: SynthesisConfig, watch: Watch = lambda progress: None) -> dict[str, Any]:
    """Makes a corpus, or what is missing of one; returns its manifest.

    Raises ``ConfigError`` where the folder holds a corpus of other settings or other sources,
    ``DataError`` where what it says about itself is broken, ``StorageError`` when the disk refuses.
    """
    sources = sources_digest()
    _same_origin(config, sources)
    atomic.remove_parts(config.out_dir)
    finished = _finished(config)
    if finished is not None:
        return vars(finished)
    with open_roles(config.roles, config.seed) as roles:
        roles.check_endpoints()  # what is wrong with them is said before the work
    proposed = _archetypes(config, watch)
    extension, workers = extend(proposed.additions), _num_workers(config)
    with processes(workers, extend, proposed.additions) as pool:
        numbers = _repository(config, extension, pool, watch)
        place = Place(numbers, extension)
        tally = _shards(config, place, pool, workers, watch)
    removed = _duplicates(config, extension, watch)
    tally.outcomes.add(proposed.outcomes)
    manifest = _Manifest(
        settings=config.decisive(),
        sources=sources,
        version=version("selenite"),
        domains=len(numbers),
        tasks=tally.tasks,
        accepted=tally.kept,
        trajectories=tally.kept - len(removed.ids),
        classes=dict(sorted(tally.classes.items())),
        rejected=dict(sorted(tally.rejected.items())),
        duplicates={name: len(ids) for name, ids in vars(removed).items()},
        contrasts={name: dict(found) for name, found in sorted(tally.contrasts.items())},
        models=tally.outcomes.record(),
        sha256={
            path.relative_to(config.out_dir).as_posix(): atomic.sha256(path)
            for path in _paths(config)
        },
    )
    atomic.write_text(config.out_dir / _MANIFEST, json.dumps(vars(manifest), indent=1))
    return vars(manifest)


def trajectories(out_dir: Path, split: str | None = None) -> Iterator[dict[str, Any]]:
    """The trajectories of a corpus without duplicates; of one split, or all.

    Raises ``ConfigError`` for a split that there is not, and where there is no finished corpus,
    ``DataError``, also later, for a file that is missing or broken.
    """
    if split not in (None, *SPLITS):
        raise ConfigError(f"split={split!r}: must be one of {', '.join(SPLITS)}")
    removed, paths = _read_removed(out_dir), _shard_paths(out_dir)

    def rows() -> Iterator[dict[str, Any]]:
        for path in paths:
            for row in read_rows(path):
                if row["id"] not in removed and split in (None, row["split"]):
                    yield row

    return rows()


def contrasts(out_dir: Path) -> Iterator[dict[str, Any]]:
    """The trajectories of a corpus with a defect that was put in. Raises as ``trajectories``."""
    for path in _shard_paths(out_dir):
        yield from read_rows(out_dir / "contrasts" / path.name)


def read_admitted(out_dir: Path) -> Admitted:
    """The domains of a corpus. Raises ``ConfigError`` where there is none, ``DataError`` for a file
    that is broken."""
    path = out_dir / _REPOSITORY
    if not path.exists():
        raise ConfigError(f"{path} is missing: give the folder of a corpus")
    return read_json(path, Admitted)


def read_manifest(out_dir: Path) -> dict[str, Any] | None:
    """Of a corpus, of whatever version made it; None where it is not finished.

    Raises ``DataError`` for one that is broken.
    """
    path = out_dir / _MANIFEST
    return read_json(path, dict[str, Any]) if path.exists() else None


def _shard_paths(out_dir: Path) -> list[Path]:
    """As the manifest has them, so that none can be missed; without one, those that are there."""
    manifest = out_dir / _MANIFEST
    if not manifest.exists():
        return sorted((out_dir / "shards").glob("*.jsonl.zst"))
    names = sorted(read_json(manifest, _Proof).sha256)
    return [out_dir / name for name in names if Path(name).match("shards/*.jsonl.zst")]


def _finished(config: SynthesisConfig) -> _Manifest | None:
    """The manifest of a corpus whose files are all as it says. Where one is not, it goes, and the
    manifest, too: both are then made again."""
    path = config.out_dir / _MANIFEST
    if not path.exists():
        return None
    manifest = read_json(path, _Manifest)
    altered = [each for each in _paths(config) if not _is_as_written(each, config, manifest)]
    if not altered:
        return manifest
    for each in (path, *altered):
        _remove(each)
    return None


def _is_as_written(path: Path, config: SynthesisConfig, manifest: _Manifest) -> bool:
    name = path.relative_to(config.out_dir).as_posix()
    return path.is_file() and manifest.sha256.get(name) == atomic.sha256(path)


def _paths(config: SynthesisConfig) -> list[Path]:
    """All files of a corpus but the manifest and the settings, in the order of their names."""
    names = [_REPOSITORY, _TOOLS, _DUPLICATES, *([ARCHETYPES] if config.archetypes else [])]
    found = [config.out_dir / name for name in names]
    for number in range(num_shards(config)):
        found.append(tally_path(config, number))
        found += [config.out_dir / name for name in rows_names(number)]
    return sorted(found)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed ({error.strerror})") from error


def _num_workers(config: SynthesisConfig) -> int:
    """No more than there is work or cores for."""
    jobs = max(-(-config.domains // _CHUNK), num_shards(config))
    return min(config.workers, jobs, os.cpu_count() or 1, config.roles.most_processes)


def _archetypes(config: SynthesisConfig, watch: Watch) -> Proposed:
    if not config.archetypes:
        return Proposed()
    return propose(
        config,
        lambda found: watch(
            Progress("archetypes", found.asked, config.archetypes, outcomes=found.outcomes)
        ),
    )


def _repository(config: SynthesisConfig, extension: str, pool: Executor, watch: Watch) -> list[int]:
    path, tools_path = config.out_dir / _REPOSITORY, config.out_dir / _TOOLS
    if path.exists():
        known = read_json(path, Admitted)
        is_whole = tools_path.is_file() and atomic.sha256(tools_path) == known.sha256
        if is_whole and known.extension == extension:
            return known.numbers
    numbers = range(config.domains)

    def examined() -> Iterator[Any]:
        jobs = repeat(config.seed), numbers, repeat(extension)
        found = pool.map(examine, *jobs, chunksize=_CHUNK)
        for done, one in enumerate(found, 1):
            yield one
            watch(Progress("repository", done, config.domains))

    repository = admit(config.seed, examined())
    if not repository.numbers:
        raise ConfigError(
            f"domains={config.domains}: none was admitted ({dict(repository.rejected)}); try more"
        )
    watch(Progress("repository", config.domains, config.domains, repository))
    tools = [
        tool.record()
        for number in repository.numbers
        for tool in known_domain(config.seed, number, extension).tools
    ]
    found = Admitted(
        seed=config.seed,
        extension=extension,
        tried=config.domains,
        tools=repository.num_tools,
        signatures=len(repository.signatures),
        rejected=dict(repository.rejected),
        numbers=list(repository.numbers),
        sha256=write_rows(tools_path, tools),
    )
    atomic.write_text(path, json.dumps(vars(found), indent=1))
    return found.numbers


def _shards(
    config: SynthesisConfig, place: Place, pool: Executor, workers: int, watch: Watch
) -> Tally:
    """Makes the shards that are not there whole. Duplicates were found among others then."""
    whole, count = Tally(-1), num_shards(config)
    known = [known_shard(config, place.extension, number) for number in range(count)]
    missing = [number for number, tally in enumerate(known) if tally is None]
    if missing:
        _remove(config.out_dir / _DUPLICATES)
    made = pool.map(make_shard, repeat(config), repeat(place), repeat(workers), missing)
    for done, tally in enumerate(known, 1):
        whole.add(next(made) if tally is None else tally)
        watch(Progress("trajectories", done, count, tally=whole))
    return whole


def _duplicates(config: SynthesisConfig, extension: str, watch: Watch) -> Removed:
    path = config.out_dir / _DUPLICATES
    if path.exists():
        return read_json(path, Removed)
    count = num_shards(config)

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield from read_rows(config.out_dir / rows_names(number)[0])
            watch(Progress("duplicates", number + 1, count))

    removed = find_duplicates(rows(), _Signatures(config.seed, extension), config)
    atomic.write_text(path, json.dumps(vars(removed)))
    return removed


class _Signatures(dict[int, dict[str, str]]):
    """Of the tools by domain and name, worked out when they are asked for."""

    def __init__(self, seed: int, extension: str) -> None:
        super().__init__()
        self._seed, self._extension = seed, extension

    def __missing__(self, number: int) -> dict[str, str]:
        tools = known_domain(self._seed, number, self._extension).tools
        self[number] = {tool.name: signature(tool.record()) for tool in tools}
        return self[number]


def _read_removed(out_dir: Path) -> frozenset[str]:
    path = out_dir / _DUPLICATES
    if not path.exists():
        raise ConfigError(f"{out_dir} has no {_DUPLICATES}: no corpus, or one not finished")
    return read_json(path, Removed).ids


def _same_origin(config: SynthesisConfig, sources: str) -> None:
    """Refuses a folder that other settings or other sources have begun."""
    path, origin = config.out_dir / _SETTINGS, {**config.decisive(), "sources": sources}
    remedy = "choose another out_dir, or remove that one"
    if not path.exists():
        if any(
            (config.out_dir / name).exists()
            for name in (ARCHETYPES, _REPOSITORY, "shards", _MANIFEST)
        ):
            raise DataError(f"{path} is missing: nothing says what the corpus is of; {remedy}")
        atomic.write_text(path, json.dumps(origin, indent=1))
        return
    try:
        known = read_json(path, dict[str, Any])
    except DataError as error:
        raise DataError(
            f"{path}: broken, so that nothing says what the corpus is of; {remedy}"
        ) from error
    keys = sorted(known.keys() | origin.keys())
    other = [key for key in keys if known.get(key, ...) != origin.get(key, ...)]
    if other == ["sources"]:
        raise ConfigError(
            f"{config.out_dir} holds a corpus of another version of selenite's sources "
            f"({str(known.get('sources'))[:12]}, here {sources[:12]}); {remedy}, or go on with the "
            "version that began it"
        )
    if other:
        raise ConfigError(
            f"{config.out_dir} holds a corpus with other settings ({', '.join(other)}); {remedy}"
        )
