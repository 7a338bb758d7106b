"""What a back end is given and gives: a chunk in its place, and its rewrite or a fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from selenite.agent.rephrasing.fidelity import Fault
from selenite.agent.rephrasing.original import Original
from selenite.agent.rephrasing.styles import Perspective, Style


@dataclass(frozen=True)
class Passage:
    """A chunk of a document that is to be rewritten. Made by ``document.py``."""

    text: str  # of the source; without blank lines around it
    original: Original  # the whole document
    heading: str  # the last one before the chunk; empty: none
    written: str  # the end of what the document has become so far; empty: the chunk is the first
    style: Style
    perspective: Perspective
    seed: int
    path: tuple[int, int, int]  # document, round, chunk


@dataclass(frozen=True)
class Attempt:
    """An earlier rewrite of the same passage that did not pass."""

    text: str
    faults: tuple[Fault, ...]


class Rephraser(Protocol):
    """Whatever rewrites passages: the rules, or a model."""

    @property
    def name(self) -> str:
        """As rows and tallies call it."""
        ...

    def rewrite(self, passage: Passage, earlier: Sequence[Attempt]) -> str | Fault:
        """The passage in other words, without space around it; or why there is none.

        Follows from the arguments alone. ``earlier`` are the attempts so far, oldest first.
        """
        ...
