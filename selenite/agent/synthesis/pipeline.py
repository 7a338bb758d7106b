"""The whole of a synthesis: repository, shards, duplicates, manifest.

    repository.json ─► shards/*.jsonl.zst ─► duplicates.json ─► manifest.json
    tools.jsonl.zst    contrasts/*.jsonl.zst

Each file is there whole or not at all; a second call goes on from what is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.agent.ontology.acceptance import Repository, admit, examine
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.duplicates import Removed, find_duplicates
from selenite.agent.synthesis.shards import Tally, make_shard, num_shards, read_rows, write_rows
from selenite.agent.tools.tool import signature
from selenite.agent.world.setting import known_domain
from selenite.errors import ConfigError

_SETTINGS = "config.json"


@dataclass(frozen=True)
class Progress:
    """How far a stage is."""

    stage: str
    done: int
    total: int
    repository: Repository | None = None
    tally: Tally | None = None

    @property
    def is_over(self) -> bool:
        return self.done == self.total and (self.stage != "repository" or bool(self.repository))


Watch = Callable[[Progress], None]


def synthesize(config: SynthesisConfig, watch: Watch = lambda progress: None) -> dict[str, Any]:
    """Makes a corpus, or what is missing of one; returns its manifest.

    Raises ``ConfigError`` where the folder holds a corpus of other settings.
    """
    manifest_path = config.out_dir / "manifest.json"
    _same_settings(config)
    if manifest_path.exists():
        return json.loads(manifest_path.read_text(encoding="utf-8"))
    with ProcessPoolExecutor(config.workers) as pool:
        numbers = _repository(config, pool, watch)
        tally = _shards(config, pool, numbers, watch)
    removed = _duplicates(config, watch)
    manifest: dict[str, Any] = {
        "settings": _settings(config),
        "version": version("selenite"),
        "domains": len(numbers),
        "tasks": tally.tasks,
        "accepted": tally.kept,
        "trajectories": tally.kept - len(removed.ids),
        "classes": dict(sorted(tally.classes.items())),
        "rejected": dict(sorted(tally.rejected.items())),
        "duplicates": {name: len(ids) for name, ids in vars(removed).items()},
        "contrasts": {name: dict(found) for name, found in sorted(tally.contrasts.items())},
        "sha256": dict(sorted(tally.sha256.items())),
    }
    for name in ("repository.json", "tools.jsonl.zst", "duplicates.json"):
        manifest["sha256"][name] = atomic.sha256(config.out_dir / name)
    atomic.write_text(manifest_path, json.dumps(manifest, indent=1))
    return manifest


def trajectories(out_dir: Path, split: str | None = None) -> Iterator[dict[str, Any]]:
    """The trajectories of a corpus without duplicates; of one split, or all."""
    removed = _read_removed(out_dir)
    for path in sorted((out_dir / "shards").glob("*.jsonl.zst")):
        for row in read_rows(path):
            if row["id"] not in removed and split in (None, row["split"]):
                yield row


def _repository(config: SynthesisConfig, pool: Executor, watch: Watch) -> list[int]:
    path = config.out_dir / "repository.json"
    if path.exists():
        return list(json.loads(path.read_text(encoding="utf-8"))["numbers"])
    numbers = range(config.domains)

    def examined() -> Iterator[Any]:
        found = pool.map(examine, repeat(config.seed), numbers, chunksize=4)
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
        for tool in known_domain(config.seed, number).tools
    ]
    write_rows(config.out_dir / "tools.jsonl.zst", tools)
    found = {
        "seed": config.seed,
        "tried": config.domains,
        "tools": repository.num_tools,
        "signatures": len(repository.signatures),
        "rejected": dict(repository.rejected),
        "numbers": repository.numbers,
    }
    atomic.write_text(path, json.dumps(found, indent=1))
    return repository.numbers


def _shards(config: SynthesisConfig, pool: Executor, domains: Sequence[int], watch: Watch) -> Tally:
    whole, count = Tally(-1), num_shards(config)
    made = pool.map(make_shard, repeat(config), repeat(domains), range(count))
    for done, tally in enumerate(made, 1):
        whole.add(tally)
        watch(Progress("trajectories", done, count, tally=whole))
    return whole


def _duplicates(config: SynthesisConfig, watch: Watch) -> Removed:
    path = config.out_dir / "duplicates.json"
    if path.exists():
        return Removed(**json.loads(path.read_text(encoding="utf-8")))
    shards = sorted((config.out_dir / "shards").glob("*.jsonl.zst"))

    def rows() -> Iterator[dict[str, Any]]:
        for done, shard in enumerate(shards, 1):
            yield from read_rows(shard)
            watch(Progress("duplicates", done, len(shards)))

    removed = find_duplicates(rows(), _Signatures(config.seed), config)
    atomic.write_text(path, json.dumps(vars(removed)))
    return removed


class _Signatures(dict[int, dict[str, str]]):
    """Of the tools by domain and name, worked out when they are asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __missing__(self, number: int) -> dict[str, str]:
        tools = known_domain(self._seed, number).tools
        self[number] = {tool.name: signature(tool.record()) for tool in tools}
        return self[number]


def _read_removed(out_dir: Path) -> frozenset[str]:
    path = out_dir / "duplicates.json"
    if not path.exists():
        raise ConfigError(f"{out_dir} has no duplicates.json: no corpus, or one not finished")
    return Removed(**json.loads(path.read_text(encoding="utf-8"))).ids


def _settings(config: SynthesisConfig) -> dict[str, Any]:
    """All that a corpus follows from."""
    return config.model_dump(mode="json", exclude={"out_dir", "workers"})


def _same_settings(config: SynthesisConfig) -> None:
    path = config.out_dir / _SETTINGS
    settings = _settings(config)
    if not path.exists():
        atomic.write_text(path, json.dumps(settings, indent=1))
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    if known != settings:
        other = [name for name in settings if known.get(name) != settings[name]]
        raise ConfigError(
            f"{config.out_dir} holds a corpus with other settings ({', '.join(other)}); choose "
            "another out_dir, or remove that one"
        )
