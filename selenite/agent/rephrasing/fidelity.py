"""Whether a rewrite says what its source says, by code alone.

Facts of the source chunk must be in the rewrite (recall); facts of the rewrite must be somewhere
in the source document (precision): what was said in an earlier chunk may come again. Code, the
form, the language and the overlap are checked, too. Nothing here knows who wrote the rewrite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field, model_validator

from selenite.agent.rephrasing.blocks import BlockKind, blocks_of
from selenite.agent.rephrasing.facts import Evidence, FactKind, facts_of
from selenite.agent.rephrasing.language import same_language
from selenite.agent.rephrasing.original import Original
from selenite.agent.rephrasing.overlap import copied_share, shared_topic
from selenite.config import Config

_SHOWN = 8  # facts that a fault names
_FENCE = re.compile(r"^\s{0,3}(?:```|~~~)", re.MULTILINE)
_ENDS = (*".!?…。！？:;",)
_CLOSERS = "\"'”’»)]*_`」』）>"


class FidelityConfig(Config):
    """When a rewrite passes."""

    recall: float = Field(default=0.9, ge=0, le=1)  # of each kind of fact; of code it is 1
    precision: float = Field(default=0.95, ge=0, le=1)
    shortest: float = Field(default=0.5, gt=0)  # characters of the rewrite per one of the source
    longest: float = Field(default=2.0, gt=0)
    slack: int = Field(default=120, ge=0)  # characters on top of longest: a question, a title
    most_copied: float = Field(default=0.95, gt=0, le=1)  # of runs of four words
    least_shared: float = Field(default=0.2, ge=0, lt=1)  # of the source's longer words

    @model_validator(mode="after")
    def _ordered(self) -> FidelityConfig:
        if self.shortest >= self.longest:
            raise ValueError(f"shortest={self.shortest}: must be below longest={self.longest}")
        return self


class Defect(StrEnum):
    """What is wrong with a rewrite."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    LANGUAGE = "language"
    COPY = "copy"
    UNRELATED = "unrelated"
    LOST_CODE = "lost_code"
    LOST_QUOTES = "lost_quotes"
    LOST_DATES = "lost_dates"
    LOST_NUMBERS = "lost_numbers"
    LOST_NAMES = "lost_names"
    NEW_CODE = "new_code"
    NEW_QUOTES = "new_quotes"
    NEW_DATES = "new_dates"
    NEW_NUMBERS = "new_numbers"
    NEW_NAMES = "new_names"


@dataclass(frozen=True)
class Fault:
    """Why a chunk is not written."""

    reason: str  # a Defect, or what the back end or the judge has against it
    detail: str  # for the model that tries again, and for people
    is_final: bool = False  # another try does not help
    is_of_endpoint: bool = False  # nothing is wrong with the text: a server is down or refuses


def faults_of(
    original: Original, source: str, rewrite: str, config: FidelityConfig
) -> tuple[Fault, ...]:
    """All that is wrong with the rewrite of a chunk of a document, what counts most first."""
    if not rewrite.strip():
        return (Fault(Defect.EMPTY, "there is no text"),)
    return (*_form(source, rewrite, config), *_facts(original, source, rewrite, config))


def _form(source: str, rewrite: str, config: FidelityConfig) -> Iterator[Fault]:
    ratio = len(rewrite) / max(1, len(source))
    if _is_cut(source, rewrite):
        yield Fault(Defect.TRUNCATED, "it breaks off in the middle")
    if ratio < config.shortest:
        yield Fault(Defect.TOO_SHORT, f"it has {ratio:.0%} of the length; say all of it")
    if len(rewrite) > config.longest * len(source) + config.slack:
        yield Fault(Defect.TOO_LONG, f"it has {ratio:.0%} of the length; add nothing")
    if not same_language(source, rewrite):
        yield Fault(Defect.LANGUAGE, "it is in another language than the passage")
    copied = copied_share(source, rewrite)
    if copied > config.most_copied:
        yield Fault(Defect.COPY, f"{copied:.0%} of it is word for word as in the passage")
    shared = shared_topic(source, rewrite)
    if shared < config.least_shared:
        yield Fault(Defect.UNRELATED, f"it has only {shared:.0%} of the passage's longer words")


def _facts(
    original: Original, source: str, rewrite: str, config: FidelityConfig
) -> Iterator[Fault]:
    wanted, got, written = facts_of(source), facts_of(rewrite, is_rewrite=True), Evidence(rewrite)
    for kind in FactKind:
        recall = 1.0 if kind is FactKind.CODE else config.recall
        needed = original.names_of(source) if kind is FactKind.NAMES else wanted[kind]
        yield from _missing(kind, needed, written, recall, "lost")
        precision = 1.0 if kind is FactKind.CODE else config.precision
        yield from _missing(kind, got[kind], original.evidence, precision, "new")


def _missing(
    kind: FactKind, facts: frozenset[str], evidence: Evidence, least: float, word: str
) -> Iterator[Fault]:
    missing = sorted(fact for fact in facts if not evidence.supports(kind, fact))
    if len(facts) - len(missing) < least * len(facts):
        shown = "; ".join(
            fact if len(fact) <= 80 else f"{fact[:77]}..." for fact in missing[:_SHOWN]
        )
        says = "it lost" if word == "lost" else "it has what the source does not:"
        yield Fault(Defect(f"{word}_{kind}"), f"{says} {kind} {shown}")


def _is_cut(source: str, rewrite: str) -> bool:
    """Whether a text breaks off: its source does not, and has a whole last sentence."""
    if len(_FENCE.findall(rewrite)) % 2 > len(_FENCE.findall(source)) % 2:
        return True
    last = rewrite.rstrip().rpartition("\n")[2].strip()
    return _is_whole(source) and not _is_whole(rewrite) and not source.rstrip().endswith(last)


def _is_whole(text: str) -> bool:
    last = blocks_of(text.strip())[-1]
    end = last.text.rstrip().rstrip(_CLOSERS)
    return last.kind is not BlockKind.PROSE or end.endswith(_ENDS)
