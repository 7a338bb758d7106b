"""The whole of a rephrasing: documents, shards, manifest.

    documents/*.jsonl.zst ─► shards/*.jsonl.zst ─► manifest.json
    documents.json           shards/*.json         (ledger.jsonl and cache/ of models)

Each file is there whole or not at all; a second call goes on from what is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib.metadata import version
from itertools import repeat
from typing import Any

from selenite import atomic
from selenite.agent.rephrasing.backends import LEDGER, open_backends
from selenite.agent.rephrasing.config import RephrasingConfig
from selenite.agent.rephrasing.intake import Intake, num_shards, take_in
from selenite.agent.rephrasing.shards import make_shard
from selenite.agent.rephrasing.tally import Tally
from selenite.agent.workers import processes, threads
from selenite.clock import Clock
from selenite.errors import ConfigError

Watch = Callable[[str, int, int, Tally], None]
"""Told the stage (``documents``, ``shards``), how many are done of how many (0: not known), and
what came of them."""

_SETTINGS = "config.json"
_MANIFEST = "manifest.json"


def rephrase(
    config: RephrasingConfig, clock: Clock, watch: Watch = lambda stage, done, total, tally: None
) -> dict[str, Any]:
    """Makes the rephrasings, or what is missing of them; returns their manifest.

    Raises ``ConfigError`` where the folder holds those of other settings, ``DataError`` for
    sources that cannot be read, ``EndpointError`` where too much fails at endpoints.
    """
    _same_settings(config)
    atomic.remove_parts(config.out_dir)
    path = config.out_dir / _MANIFEST
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    intake = take_in(config, lambda done: watch("documents", done, 0, Tally(-1)))
    tally = _shards(config, intake, clock, watch)
    manifest = _manifest(config, intake, tally)
    atomic.write_text(path, json.dumps(manifest, indent=1))
    return manifest


def _shards(config: RephrasingConfig, intake: Intake, clock: Clock, watch: Watch) -> Tally:
    whole, total = Tally(-1), num_shards(config, intake)
    held_out = frozenset(intake.held_out)
    with open_backends(config, clock) as backends, _pool(config) as pool:
        tasks = (repeat(config), repeat(held_out), repeat(backends), range(total))
        for done, tally in enumerate(pool.map(make_shard, *tasks), 1):
            whole.add(tally)
            watch("shards", done, total, whole)
    whole.check_integrity()
    return whole


def _pool(config: RephrasingConfig) -> AbstractContextManager[Executor]:
    """Models are waited for, by threads that share limits and ledger; rules are work."""
    return threads(config.workers) if config.uses_models else processes(config.workers)


def _manifest(config: RephrasingConfig, intake: Intake, tally: Tally) -> dict[str, Any]:
    read, came = asdict(intake), asdict(tally)
    digests = read.pop("sha256") | came.pop("sha256")
    digests["documents.json"] = atomic.sha256(config.out_dir / "documents.json")
    read["held_out"] = len(intake.held_out)
    del came["number"]
    manifest: dict[str, Any] = {
        "settings": config.decisive(),
        "version": version("selenite"),
        "read": read,
        **{name: dict(sorted(v.items())) if isinstance(v, dict) else v for name, v in came.items()},
        "sha256": dict(sorted(digests.items())),
    }
    if config.uses_models:
        from selenite.agent.models.totals import read_ledger

        totals = read_ledger(config.out_dir / LEDGER)
        manifest["models"] = {
            "calls": totals.calls,
            "failed": dict(sorted(totals.failed.items())),
            "faults": dict(sorted(totals.faults.items())),
            **dict(sorted(totals.counts.items())),
            "cost": float(totals.cost),
        }
    return manifest


def _same_settings(config: RephrasingConfig) -> None:
    path, settings = config.out_dir / _SETTINGS, config.decisive()
    if not path.exists():
        atomic.write_text(path, json.dumps(settings, indent=1))
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    if known != settings:
        other = [name for name in settings if known.get(name) != settings[name]]
        raise ConfigError(
            f"{config.out_dir} holds rephrasings with other settings ({', '.join(other)}); choose "
            "another out_dir, or remove that one"
        )
