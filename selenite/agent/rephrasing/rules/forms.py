"""What paragraphs become: points, numbered statements, outlines, questions, conversations."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from selenite.agent.rephrasing.rules.clauses import small_start
from selenite.agent.rephrasing.styles import Form

_TABLE = tomllib.loads(files(__package__).joinpath("forms.toml").read_text(encoding="utf-8"))
_QUESTIONS: dict[str, list[str]] = _TABLE["questions"]
_VOICES: dict[str, list[list[str]]] = _TABLE["voices"]
_SUBJECT = re.compile(
    r"(?P<subject>[^\s,;:()]+(?: [^\s,;:()]+){0,5}?) "
    r"(?:is|are|was|were|has|have|had|can|could|may|might|must|will|would|should|does|do)\b"
)
_NO_SUBJECT = re.compile(
    r"(?:it|they|he|she|we|you|i|this|that|these|those|there|here|what|which|who|how|why|if|when"
    r"|in|on|at|by|for|from|with|to|of|as|after|before|since|until|till|recently|lately|because|although|while|and|but"
    r"|or|so|then|today|now|often|usually|also|not|one|all|some|both|either|neither|nor|once|unless|note|please)\b",
    re.IGNORECASE,
)
_DEFINITION = re.compile(
    r"(?P<subject>(?:[^\s,;:()]+ ){0,5}?[^\s,;:()]+) (?:is|are) (?P<rest>(?:an?|the) [^:;]+)$"
)
_GROUP = 2  # sentences of an answer, at most


def voices(form: Form, rng: random.Random) -> tuple[str, str]:
    """Who asks and who knows, throughout a document; empty where nobody speaks."""
    if form not in _VOICES:
        return "", ""
    asks, knows = rng.choice(_VOICES[form])
    return asks, knows


@dataclass(frozen=True)
class Section:
    """Where a paragraph stands."""

    heading: str  # empty: none
    speakers: tuple[str, str]
    small: frozenset[str]  # words that may lose a capital


def render(form: Form, sentences: Sequence[str], section: Section, rng: random.Random) -> str:
    """The sentences of a paragraph in a form; all of them, in order."""
    if sentences[-1].endswith(":"):  # what it announces follows
        return " ".join(sentences)
    if len(sentences) == 1 and form in (Form.NUMBERED, Form.OUTLINE):
        return sentences[0]
    match form:
        case Form.PROSE:
            return " ".join(sentences)
        case Form.NOTES:
            return "\n".join(f"- {_note(sentence)}" for sentence in sentences)
        case Form.NUMBERED:
            return "\n".join(f"{n}. {sentence}" for n, sentence in enumerate(sentences, start=1))
        case Form.OUTLINE:
            first, *rest = sentences
            return "\n".join([f"- {first}", *(f"  - {_note(sentence)}" for sentence in rest)])
        case Form.QUESTIONS:
            return "\n\n".join(_exchanges(sentences, section, rng))
        case Form.DIALOGUE:
            return "\n".join(_exchanges(sentences, section, rng))


def _note(sentence: str) -> str:
    """A definition as "term: what it is"; anything else as it is."""
    match = _DEFINITION.match(sentence)
    if match is None or _NO_SUBJECT.match(sentence):
        return sentence
    return f"{match['subject']}: {match['rest']}"


def _exchanges(sentences: Sequence[str], section: Section, rng: random.Random) -> Iterator[str]:
    asks, knows = section.speakers
    further = rng.sample(_QUESTIONS["further"], len(_QUESTIONS["further"]))
    place = 0
    while place < len(sentences):
        group = sentences[place : place + rng.randint(1, _GROUP)]
        question = _question(group[0], section, place == 0, rng)
        if question is None:
            question = further[place % len(further)]
        yield f"{asks}: {question}\n{knows}: {' '.join(group)}"
        place += len(group)


def _question(sentence: str, section: Section, is_first: bool, rng: random.Random) -> str | None:
    match = _SUBJECT.match(sentence)
    if match is not None and not _NO_SUBJECT.match(sentence):
        subject = small_start(match["subject"], section.small) or match["subject"]
        return rng.choice(_QUESTIONS["subject"]).format(subject=subject)
    if is_first and section.heading:
        return rng.choice(_QUESTIONS["heading"]).format(heading=section.heading)
    return None
