"""Moves within a sentence, and between two: what may stand elsewhere is put there.

Each rule applies only to sentences of a form that it cannot spoil, and gives ``None`` for others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from selenite.agent.rephrasing.styles import Length

_LITTLE = re.compile(
    r"a|an|the|this|that|these|those|it|they|he|she|we|you|there|its|their|our|your|his|her|in|on"
    r"|at|for|from|with|by|to|of|as|if|when|while|because|although|after|before|since|until|unless"
    r"|some|many|most|all|each|every|both|no|such|other|another|any|several|here|one"
)
_FIRST_WORD = re.compile(r"(?:[A-Z][a-z]+|A)\b")  # others (IT, I, NASA) keep their capitals
_ALSO_NAMES = re.compile(r"may|march|august|polish|turkey|china|mark|bill|will|rose|grant|god|west")
_CONJUNCTION = re.compile(r"(?:and|but|or|nor|so|for|yet|then|now|whence)\b", re.IGNORECASE)
_PRONOUN = re.compile(
    r"(?:he|she|it|they|this|that|these|those|its|their|his|her)\b", re.IGNORECASE
)
_SUBORDINATE = re.compile(
    r"(?P<word>Because|Although|Though|Unless|If|When|Whenever|After|Before|As soon as|Once|While"
    r"|Even though|As long as|In order to) (?P<first>[^,;:()]+), (?P<rest>[^,;:]+)\.$"
)
_TRAILING = re.compile(
    r"(?P<rest>[^,;:()]+?),? (?P<word>because|although|unless|even though|as soon as|as long as) "
    r"(?P<first>[^,;:()]+)\.$"
)
_ADVERBIAL = re.compile(
    r"(?P<word>In|On|At|During|By|Since|Until|After|Before|From|Under|Within|Throughout) "
    r"(?P<first>[^,;:()]{2,50}), (?P<rest>[^,;:()]+)\.$"
)
_IDIOM = re.compile(
    r"(?:In|By|At|On) (?:fact|addition|particular|contrast|short|summary|turn|general|theory|case"
    r"|other|this case|that case|the other|the one|first|last|most cases|the contrary)\b"
)
_VERB = r"(?:is|are|was|were|has|have|had|can|could|may|might|must|will|would|should|does|do)"
_COORDINATE = re.compile(
    r"(?P<first>[^;:()]{25,}?)(?:, (?P<word>and|but|so)|;) (?P<rest>(?:"
    rf"(?:it|he|she|there|this) (?:{_VERB}|[a-z]+s|[a-z]+ed)|(?:they|we|you|these) [a-z]+"
    r"|(?:the|its|their|each|every|no|most|many|some) (?:(?!who|which|that)[\w-]+ ){1,3}?"
    rf"{_VERB})\b[^;:()]{{10,}})$"
)
_NO_MAIN_CLAUSE = re.compile(r"(?:if|when|because|although|while|both|either)\b", re.IGNORECASE)
_RELATIVE = re.compile(
    r"(?P<first>[^;:()]{30,}), which (?P<rest>(?P<verb>is|was|has|had|can|may|must|will|means|makes"
    r"|allows|are|were|have) [^,;:()]{10,})$"
)
_PASSIVE = re.compile(
    r"(?P<subject>[^,;:()]{3,60}?) (?:was|were) (?P<verb>[a-z]+ed|found|made|built|led|won|held)"
    r" by (?P<agent>(?:the )?[A-Z][\w.'’-]*(?: (?:and |of |the )*[A-Z][\w.'’-]*)*)"
    r"(?P<rest>(?: (?:in|on|at|from|for|with|during|after|before|between|to) [^;:()]+)?)\.$"
)
_WHEN = re.compile(
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|\w{3,6}day|Easter|Christmas)\b"
)
_OBJECTS = {"it": "it", "they": "them", "he": "him", "she": "her", "we": "us", "this": "this"}
_NEGATIVE = re.compile(r"\b(?:not|never|no|nor|neither|only|if|whether|that|and|or|but)\b|n't\b")
_LINKS = {None: "", "and": "", "but": "However, ", "so": "Therefore, "}

Rule = Callable[[str, frozenset[str]], str | None]


def recast(
    sentences: Sequence[str],
    small: frozenset[str],
    length: Length,
    rng: random.Random,
    share: float,
) -> list[str]:
    """Sentences whose clauses stand elsewhere, and which are shorter or longer than they were.

    ``small`` are words that may lose a capital, besides the little ones of the language.
    """
    moved = [
        _moved(sentence, small, rng) if rng.random() < share else sentence for sentence in sentences
    ]
    if length is Length.SHORT or (length is Length.MIXED and rng.random() < 0.5):
        return [part for sentence in moved for part in split(sentence)]
    return _joined(moved, small, rng, share) if length is Length.LONG else moved


def small_start(sentence: str, small: frozenset[str]) -> str | None:
    """The sentence as the second part of another; None: its first word may be a name."""
    first = _FIRST_WORD.match(sentence)
    if first is None:
        return None
    word = first[0].lower()
    if _LITTLE.fullmatch(word) or (word in small and not _ALSO_NAMES.fullmatch(word)):
        return word + sentence[first.end() :]
    return None


def large_start(sentence: str) -> str:
    """The sentence with a capital."""
    return sentence[:1].upper() + sentence[1:]


def to_the_end(sentence: str, small: frozenset[str]) -> str | None:
    """From "If a, b." to "B if a."."""
    match = _SUBORDINATE.match(sentence)
    if match is None or _PRONOUN.match(match["rest"]) or _CONJUNCTION.match(match["rest"]):
        return None
    if re.search(r"\b(?:if|when|because|which|who|and|or|but|that)\b", match["rest"]):
        return None
    word = match["word"][0].lower() + match["word"][1:]
    return f"{large_start(match['rest'])} {word} {match['first']}."


def to_the_front(sentence: str, small: frozenset[str]) -> str | None:
    """From "B because a." to "Because a, b."."""
    match = _TRAILING.match(sentence)
    if match is None or _NEGATIVE.search(match["rest"]) or _NEGATIVE.search(match["first"]):
        return None
    rest = small_start(match["rest"], small)
    if rest is None or _PRONOUN.match(match["first"]):
        return None
    return f"{large_start(match['word'])} {match['first']}, {rest}."


def adverbial_last(sentence: str, small: frozenset[str]) -> str | None:
    """From "In 1898, b." to "B in 1898."."""
    match = _ADVERBIAL.match(sentence)
    if match is None or _IDIOM.match(sentence) or _PRONOUN.match(match["rest"]):
        return None
    if re.search(r"\b(?:and|or|but|which|who|that|if|when|because|to)\b", match["rest"]):
        return None
    word = match["word"].lower()
    return f"{large_start(match['rest'])} {word} {match['first']}."


def active(sentence: str, small: frozenset[str]) -> str | None:
    """From "B was made by A." to "A made B."; only names are sure to have done something."""
    match = _PASSIVE.match(sentence)
    if match is None or re.search(r"\b(?:which|that|who|and|or|but|not)\b", match["subject"]):
        return None
    if _WHEN.match(match["agent"]) or re.search(r"\b(?:and|or|but)\b", match["rest"]):
        return None
    subject = _OBJECTS.get(match["subject"].lower()) or small_start(match["subject"], small)
    agent = large_start(match["agent"])
    return f"{agent} {match['verb']} {subject or match['subject']}{match['rest']}."


def split(sentence: str) -> list[str]:
    """Two sentences for two main clauses, or for one and a last relative clause."""
    if _NO_MAIN_CLAUSE.match(sentence):
        return [sentence]
    relative = _RELATIVE.match(sentence)
    if relative is not None:
        word = "These" if relative["verb"] in ("are", "were", "have") else "This"
        return [f"{relative['first']}.", f"{word} {relative['rest']}"]
    match = _COORDINATE.match(sentence)
    if match is None:
        return [sentence]
    link = _LINKS[match["word"]]
    rest = link + match["rest"] if link else large_start(match["rest"])
    return [f"{match['first']}.", rest]


def _moved(sentence: str, small: frozenset[str], rng: random.Random) -> str:
    rules: list[Rule] = [active, to_the_end, to_the_front, adverbial_last]
    rng.shuffle(rules)
    return next((new for rule in rules if (new := rule(sentence, small)) is not None), sentence)


def _joined(
    sentences: Sequence[str], small: frozenset[str], rng: random.Random, share: float
) -> list[str]:
    """Two short sentences in a row become one."""
    found: list[str] = []
    is_free = True  # the last one is no joined one
    for sentence in sentences:
        before = found[-1] if found else ""
        both_short = len(before) < 110 and len(sentence) < 110
        start = None if _CONJUNCTION.match(sentence) else small_start(sentence, small)
        is_plain = before.endswith(".") and not re.search(r"[:;()]", before + sentence)
        if is_free and before and both_short and is_plain and start and rng.random() < share:
            word = ", and" if not re.search(r"\band\b", before + sentence) else ";"
            found[-1] = f"{before[:-1]}{word} {start}"
            is_free = False
        else:
            found.append(sentence)
            is_free = True
    return found
