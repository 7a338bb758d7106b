"""Which part of a corpus a trajectory is of: for training, or held out along one of the axes of
generalisation: categories, domains, styles of names, task templates, personas, seeds.

The first axis that holds it out counts, so each held-out part differs from training in its own way.
Tasks of the same calls in the same records are on the same side, however they are worded.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal, get_args

from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.tasks.task import Task

Split = Literal["train", "category", "domain", "style", "template", "persona", "sample"]
SPLITS: tuple[Split, ...] = get_args(Split)

HELD_OUT_CATEGORIES = frozenset({"travel", "security", "laboratory"})
HELD_OUT_STYLES = frozenset({"dotted_camel"})
HELD_OUT_TEMPLATES = frozenset({"reconcile", "paged"})
_SHARE = 0.05  # of domains, of personas, and of what is left


def split_of(trajectory: Trajectory) -> Split:
    """``train``, or the first axis that holds a trajectory out."""
    domain = trajectory.domain
    if domain.category in HELD_OUT_CATEGORIES:
        return "category"
    if _is_drawn(f"domain {domain.id}"):
        return "domain"
    if domain.style in HELD_OUT_STYLES:
        return "style"
    if trajectory.task.template in HELD_OUT_TEMPLATES:
        return "template"
    if _is_drawn(f"persona {trajectory.persona}"):
        return "persona"
    return "sample" if _is_drawn(f"task {_solution(trajectory.task)}") else "train"


def _solution(task: Task) -> str:
    """The records that a task begins with, and the calls that solve it."""
    place = task.setting
    calls = [[step.tool, step.arguments] for step in task.steps]
    return json.dumps([place.seed, place.domain, place.extension, place.world, calls])


def _is_drawn(name: str) -> bool:
    """The same draw for the same name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < _SHARE * 2**64
