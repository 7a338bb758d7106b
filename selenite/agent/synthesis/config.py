"""What ``selenite synth`` is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from selenite import atomic
from selenite.agent.roles.config import RolesConfig
from selenite.agent.tasks.author import RECIPES
from selenite.agent.tasks.task import TaskClass
from selenite.config import Config

_PACKAGE = Path(__file__).resolve().parents[2]
_MAKERS = (
    *("chat/openai_form.py", "agent/randomness.py", "agent/rows.py"),
    *("agent/values", "agent/ontology", "agent/tools", "agent/world", "agent/tasks"),
    *(
        "agent/functions",
        "agent/users",
        "agent/episodes",
        "agent/judges",
        "agent/models",
        "agent/roles",
    ),
    *("agent/synthesis/extension.py", "agent/synthesis/shards.py"),
    *("agent/synthesis/splits.py", "agent/synthesis/duplicates.py"),
    *("agent/synthesis/dataset.py", "agent/synthesis/pairs.py", "agent/synthesis/export.py"),
    "data/documents.py",
)


class SynthesisConfig(Config):
    """A corpus: everything in it follows from these, whatever the number of workers."""

    out_dir: Path
    seed: int = Field(default=0, ge=0)
    domains: int = Field(default=1000, ge=1)  # that are tried; some are not admitted
    tasks: int = Field(default=20_000, ge=1)
    tasks_per_domain: int = Field(default=20, ge=1)  # in a row, before the next domain's turn
    classes: tuple[TaskClass, ...] = Field(default=tuple(RECIPES), min_length=1)  # of tasks
    shares: dict[TaskClass, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Of classes that are to have another share than usual (``RECIPES``)."""
    states: int = Field(default=0, ge=0)
    """Sets of records of a domain, in one of which a task begins; 0: each task has its own."""
    contrasts: float = Field(default=0.25, ge=0, le=1)  # share of tasks that get one, too
    shard_tasks: int = Field(default=500, ge=1)
    same_structure: int = Field(default=8, ge=1)  # trajectories of one structure that stay
    likeness: float = Field(default=0.85, gt=0, le=0.96)  # of words, from which on one of two goes
    archetypes: int = Field(default=0, ge=0)  # that the domain author is asked for
    roles: RolesConfig = RolesConfig()
    most_failed: float = Field(default=0.1, ge=0, le=1)  # of a shard's tasks, by endpoints
    workers: int = Field(default=2, ge=1)  # at most: there are no more than cores or jobs

    @model_validator(mode="after")
    def _archetypes_have_an_author(self) -> Self:
        has_author = any(part.endpoint is not None for part in self.roles.domain_author)
        if has_author != bool(self.archetypes):
            author = "a model" if has_author else "code, which proposes none"
            raise ValueError(
                f"archetypes={self.archetypes}: roles.domain_author is {author}; set both, or "
                "neither"
            )
        return self

    def decisive(self) -> dict[str, Any]:
        """The settings that a corpus follows from."""
        unread = {"out_dir", "workers", "most_failed", "roles"}
        return {**self.model_dump(mode="json", exclude=unread), "roles": self.roles.decisive()}


def sources_digest(package: Path = _PACKAGE) -> str:
    """SHA-256 of the code and the vocabularies that make a corpus; ``package`` is selenite's."""
    found = [path for name in _MAKERS for path in (package / name, *(package / name).rglob("*"))]
    names = sorted(
        path.relative_to(package).as_posix() for path in found if path.suffix in (".py", ".toml")
    )
    lines = (f"{atomic.sha256(package / name)} {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
