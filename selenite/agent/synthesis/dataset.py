"""What a model is taught from, as chat JSON lines: one file for each part of ``selenite sft``.

    functions.jsonl     single requests for functions of every kind (``agent/functions``)
    groups.jsonl        the same, many with the same tools
    functions-held-out.jsonl   single requests of concepts that are held out: for tuning and tests
    agentic.jsonl       trajectories of a corpus of worlds, training split
    chat.jsonl          plain chat, answered by the model itself (``agent/functions/plain_chat.py``)
    pairs.jsonl         two trajectories of one task: which is better, and why
    dataset.json        settings, counts and SHA-256 of the files

A second call makes what is missing; what other settings made is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from selenite import atomic
from selenite.agent.functions.group import make_group
from selenite.agent.functions.plain_chat import PlainChatConfig, chat_rows, weights_digest
from selenite.agent.functions.sample import make_sample
from selenite.agent.synthesis.config import SynthesisConfig, sources_digest
from selenite.agent.synthesis.export import chat_row
from selenite.agent.synthesis.pairs import pair_rows
from selenite.agent.synthesis.pipeline import Watch, synthesize, trajectories
from selenite.config import Config
from selenite.errors import ConfigError

MANIFEST = "dataset.json"


class DatasetConfig(Config):
    """The parts. A number of 0 leaves a part out."""

    out_dir: Path
    seed: int = Field(default=0, ge=0)
    functions: int = Field(default=20_000, ge=0)
    groups: int = Field(default=0, ge=0)  # of ``group.SIZE`` requests each
    functions_held_out: int = Field(default=1000, ge=0)
    pairs: int = Field(default=2000, ge=0)
    chat: PlainChatConfig | None = None
    """Plain chat, answered by the model that is to be taught; None: there is none."""
    worlds: SynthesisConfig
    """The corpus that trajectories and pairs come from; it is made first."""


def make_dataset(config: DatasetConfig, watch: Watch = lambda progress: None) -> dict[str, Any]:
    """Makes the files; returns the manifest.

    Raises ``ConfigError`` where the folder holds a data set of other settings or sources, and the
    errors of ``synthesize``.
    """
    origin = {
        **config.model_dump(mode="json", exclude={"out_dir", "worlds"}),
        "worlds": config.worlds.decisive(),
        "sources": sources_digest(),
    }
    if config.chat is not None:
        origin["chat_weights"] = weights_digest(config.chat.model)
    path = config.out_dir / MANIFEST
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["origin"] != origin:
            raise ConfigError(
                f"{config.out_dir} holds a data set of other settings or sources; choose another "
                "out_dir, or remove that one"
            )
        files = {config.out_dir / name: digest for name, digest in known["sha256"].items()}
        if all(file.is_file() and atomic.sha256(file) == d for file, d in files.items()):
            return dict(known)
    synthesize(config.worlds, watch)
    corpus, seed = config.worlds.out_dir, config.seed
    parts: dict[str, Callable[[], Iterable[Mapping[str, Any]]]] = {
        "agentic": lambda: _agentic(corpus, config.worlds.states)
    }
    if config.functions:
        parts["functions"] = lambda: (make_sample(seed, n).row() for n in range(config.functions))
    if config.groups:
        parts["groups"] = lambda: (
            sample.row() for n in range(config.groups) for sample in make_group(seed, n)
        )
    if config.functions_held_out:
        parts["functions-held-out"] = lambda: (
            make_sample(seed, n, "concept").row() for n in range(config.functions_held_out)
        )
    if config.pairs:
        parts["pairs"] = lambda: pair_rows(corpus, seed, config.pairs)
    if config.chat is not None:
        chat = config.chat
        parts["chat"] = lambda: chat_rows(chat, seed, config.out_dir / "answers")
    counts = {
        name: _write(config.out_dir / f"{name}.jsonl", rows()) for name, rows in parts.items()
    }
    digests = {f"{name}.jsonl": atomic.sha256(config.out_dir / f"{name}.jsonl") for name in parts}
    manifest = {"origin": origin, "counts": counts, "sha256": digests}
    atomic.write_text(path, json.dumps(manifest, indent=1))
    return manifest


def _agentic(corpus: Path, states: int) -> Iterator[dict[str, Any]]:
    for row in trajectories(corpus, "train"):
        task = row["task"]
        # Tasks of one domain may have each other's tools, but for those about a missing tool.
        place = task["setting"]
        group = "" if task["forbidden"] else f"{place['seed']}-{place['domain']}"
        if group and states:  # then also who the agent is, and the day
            group += f"-{place['world']}"
        yield chat_row(row) | {"group": group}


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    atomic.write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)
