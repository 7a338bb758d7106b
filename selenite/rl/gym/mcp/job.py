"""A task for the tools of one server: how it begins, and what should be there at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

ServerName = Literal["filesystem", "git", "sqlite"]
SERVERS: tuple[ServerName, ...] = get_args(ServerName)
"""Servers of the catalogue for which there are jobs."""

State = Mapping[str, object]
"""What counts of a folder, part by part: a file's text, a table's rows, a branch's commits."""


@dataclass(frozen=True)
class Job:
    """Paths are those of an episode's folder, with ``workspace/`` and ``private/`` in it."""

    server: ServerName
    request: str
    prepare: Callable[[Path], None]  # writes the beginning into an empty folder
    finish: Callable[[Path], None]  # makes the end of a beginning, without the server
    state: Callable[[Path], State]
    calls: Sequence[tuple[str, Mapping[str, Any]]]
    """One way to the end through the server: a proof that there is one."""


@dataclass(frozen=True)
class Words:
    """What tasks are about. Those of training and of evaluation share nothing."""

    people: Sequence[str]
    cities: Sequence[str]
    goods: Sequence[str]
    please: Sequence[str]  # how a request begins


TRAINING = Words(
    ("Amal", "Boris", "Chloe", "David", "Elena", "Farid"),
    ("Bergen", "Cork", "Gdansk", "Lyon"),
    ("chairs", "lamps", "tables", "carpets"),
    ("Please do this:", "I need your help.", "There is some work to do."),
)
EVALUATION = Words(
    ("Greta", "Hugo", "Irena", "Jamal", "Kirsi", "Lorenzo"),
    ("Porto", "Turku", "Varna", "Leeds"),
    ("mirrors", "shelves", "ladders", "curtains"),
    ("A colleague left this unfinished.", "Could you see to the following?"),
)
