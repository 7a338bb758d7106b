"""What code has against something that a model proposes: a reason to count, and words for the
model, which may do better when it is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Why(StrEnum):
    """Why a proposal is not taken, besides the reasons of ``models/failure.py``."""

    # of texts that stand for another
    BLANK = "blank"
    NOT_PLAIN = "not_plain"  # control characters
    UNCHANGED = "unchanged"  # the same text again
    UNSEEN = "unseen"  # code does not find a value in its own text, and so cannot check others
    LOST_VALUE = "lost_value"  # an id, a number, a date, a slot is gone
    INVENTED = "invented"  # there is a new one, or another word that could be a fact
    REORDERED = "reordered"  # values stand in another order, or beside other names
    LOST_WORD = "lost_word"  # what a thing or a deed is called in the domain is gone
    NEW_WORD = "new_word"  # another thing or deed is spoken of
    CHANGED_SENSE = "changed_sense"  # a "not", "if", "highest" or "delete" came or went
    REPEATS = "repeats"  # a sentence stands there twice
    BRACES = "braces"  # slots of a template are not as they were
    # of archetypes
    UNREADABLE = "unreadable"  # a line is not in the language of ontology/field_spec.py
    BAD_NAME = "bad_name"
    BAD_BOUNDS = "bad_bounds"
    UNKNOWN_REFERENCE = "unknown_reference"
    BAD_LIFE = "bad_life"
    NOT_NEW = "not_new"
    TOOLS_FAIL = "tools_fail"  # no domain with it evolves in which every tool works


@dataclass(frozen=True)
class Objection:
    """Why a proposal is not taken."""

    why: Why
    detail: str  # for people and for the model
