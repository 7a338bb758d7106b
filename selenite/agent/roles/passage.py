"""What code can see in a text: values, words of the domain, words that turn the sense, and others.

Values are known by the forms in which they may be said; digits elsewhere are numbers of the text's
own. Words and senses that are denied ("do not cancel") begin with "not".
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from selenite.agent.roles.vocabulary import TABLE, Vocabulary, stem
from selenite.agent.values.numbers import WORDS

Forms = Sequence[str]
"""The ways to say one value."""

# Not "one", which is a pronoun as well.
_NUMBERS = frozenset({*WORDS[2:20], *WORDS[20::10], *TABLE["numbers"].split()})
_SENSES = {
    name: re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b")
    for name, phrases in TABLE["senses"].items()
}
_DEEDS = {
    name: re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})(?:s|es|d|ed|ing)?\b")
    for name, phrases in TABLE["deeds"].items()
}
_NEGATION = _SENSES["negation"]
_TOKEN = re.compile(
    r"\0(?P<value>\d+)\0"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)"
    r"|(?P<number>\d(?:[\d.,:]*\d)?)"
    r"|(?P<end>[.!?;\n])"
    r"|(?P<pause>[,:])"
)
_QUOTED = re.compile(r"[\"“]([^\"”\0]{2,60})[\"”]")
_TOWARDS = frozenset({"to", "into", "onto", "from", "as", "than"})
_LINKS = frozenset({"the", "this", "that", "my", "a", "an", "with", "whose", "is", "of", "id"})
_MARK, _PAUSE = "\0", ","  # in a list of words
_SENTENCE = 3  # words, at least, of one that should not stand there twice
_REACH = 2  # words between a "not" and the deed that it denies, the deed included


@dataclass
class Passage:
    """One text, read."""

    values: list[int] = field(default_factory=list)  # places of their forms, each once
    labels: list[str] = field(default_factory=list)  # of each: the last noun since the one before
    towards: list[str] = field(default_factory=list)  # of each: the "to" or "from" before it
    words: Counter[str] = field(default_factory=Counter)  # stems of the domain
    senses: Counter[str] = field(default_factory=Counter)  # others than negations and deeds are 1
    sentences: Counter[str] = field(default_factory=Counter)  # of three words or more
    numbers: set[str] = field(default_factory=set)  # that are none of the values
    quotes: set[str] = field(default_factory=set)  # small
    spelt: dict[str, str] = field(default_factory=dict)  # every word by its stem


def read_passage(text: str, values: Sequence[Forms], vocabulary: Vocabulary) -> Passage:
    """Reads a text in which ``values`` may be said, each in one of its forms."""
    masked = _masked(text, values)
    small = masked.lower().replace("’", "'")
    found = Passage(senses=_senses(small))
    found.quotes |= {quoted.lower() for quoted in _QUOTED.findall(masked)}
    sentence: list[str] = []  # its words so far, small, with marks for values and pauses
    for token in _TOKEN.finditer(masked):
        match token.lastgroup:
            case "value":
                _note_value(found, int(token["value"]), sentence, vocabulary)
            case "word":
                _note_word(found, token["word"], sentence, vocabulary)
            case "number":
                found.numbers.add(token["number"])
            case "end":
                _note_sentence(found, sentence)
                sentence = []
            case _:
                sentence.append(_PAUSE)
    _note_sentence(found, sentence)
    return found


def places_of(values: Sequence[Forms]) -> dict[str, int]:
    """The place of each form. One that two values have stands for the first of them."""
    return {form: place for place, forms in reversed([*enumerate(values)]) for form in forms}


def _senses(small: str) -> Counter[str]:
    found = Counter({name: 1 for name, sense in _SENSES.items() if sense.search(small)})
    if negations := _NEGATION.findall(small):
        found["negation"] = len(negations)
    for name, deed in _DEEDS.items():
        for place in deed.finditer(small):
            before = re.split(r"[.,:;!?\n]", small[: place.start()])[-1].split()
            found[f"not {name}" if _is_denied(before) else name] += 1
    return found


def _is_denied(before: Sequence[str]) -> bool:
    """Whether what comes after these words is what is not to be."""
    since = itertools.takewhile(lambda word: word != _PAUSE, reversed(before))
    return any(map(_NEGATION.fullmatch, itertools.islice(since, _REACH)))


def _masked(text: str, values: Sequence[Forms]) -> str:
    """The text with each value replaced by its number between marks; longer forms first."""
    places = places_of(values)
    if not places:
        return text
    options = "|".join(map(re.escape, sorted(places, key=len, reverse=True)))
    pattern = rf"(?<![\w-])(?<!\d[.,])(?:{options})(?![\w-]|[.,]\d)"
    return re.sub(pattern, lambda found: f"\0{places[found[0]]}\0", text)


def _note_sentence(found: Passage, sentence: Sequence[str]) -> None:
    if len(sentence) >= _SENTENCE:
        found.sentences[" ".join(sentence)] += 1


def _note_value(found: Passage, place: int, sentence: list[str], vocabulary: Vocabulary) -> None:
    if place not in found.values:
        since = itertools.takewhile(lambda word: word != _MARK, reversed(sentence))
        nouns = (root for word in since if (root := stem(word)) in vocabulary.nouns)
        before = (word for word in reversed(sentence) if not _is_link(word, vocabulary))
        last = next(before, "")
        found.values.append(place)
        found.labels.append(next(nouns, ""))
        found.towards.append(last if last in _TOWARDS else "")
    sentence.append(_MARK)


def _is_link(word: str, vocabulary: Vocabulary) -> bool:
    return word in _LINKS or stem(word) in vocabulary.nouns


def _note_word(found: Passage, word: str, sentence: list[str], vocabulary: Vocabulary) -> None:
    small = word.lower().replace("’", "'")
    root = stem(small)
    if root in vocabulary.words:
        found.words[f"not {root}" if _is_denied(sentence) else root] += 1
    if small in _NUMBERS:
        found.numbers.add(small)
    found.spelt.setdefault(root, small)
    sentence.append(small)
