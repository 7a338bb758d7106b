"""What ``selenite synth`` is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from selenite.config import Config


class SynthesisConfig(Config):
    """A corpus: everything in it follows from these, whatever the number of workers."""

    out_dir: Path
    seed: int = 0
    domains: int = Field(default=1000, ge=1)  # that are tried; some are not admitted
    tasks: int = Field(default=20_000, ge=1)
    tasks_per_domain: int = Field(default=20, ge=1)  # in a row, before the next domain's turn
    contrasts: float = Field(default=0.25, ge=0, le=1)  # share of tasks that get one, too
    shard_tasks: int = Field(default=500, ge=1)
    same_structure: int = Field(default=8, ge=1)  # trajectories of one structure that stay
    likeness: float = Field(default=0.85, gt=0, le=1)  # of words, from which on one of two goes
    workers: int = Field(default=2, ge=1)
