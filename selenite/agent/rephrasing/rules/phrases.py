"""Moves within a phrase: possession, short relative clauses, the order of what is only listed."""

from __future__ import annotations

import random
import re

_AFTER = (  # words that cannot belong to the noun before them
    "is|are|was|were|has|have|had|can|could|may|might|must|will|would|should|does|do|in|on|at|to|for"
    "|by|with|from|as|and|or|but|if|when|while|because|that|which|who|where|than|into|over|under|it"
)
_NOUN_ENDS = rf"(?=[.,;:)]|$| (?:{_AFTER})\b)"
_OF = re.compile(
    rf"\b(?P<the>[Tt]he) (?P<part>[a-z]{{3,}}) of the (?P<whole>[a-z]{{3,}}[^s\W]){_NOUN_ENDS}"
)
_NO_PART = re.compile(
    r"rest|end|part|parts|one|number|majority|edge|fact|kind|sort|type|lack|middle|form|most|use|some"
    r"|all|none|each|any|case|basis|sake|purpose|top|inside|outside|bottom|back|front|course|time"
)
_RELATIVE = re.compile(
    r"(?<=[a-z]) (?:that|which) (?:is|are|was|were) (?P<verb>[a-z]{2,}ed) "
    r"(?=by|in|on|with|to|from|for)"
)
_NO_NOUN = re.compile(
    r"\b(?:so|all|note|say|says|said|show|shows|mean|means|sure|know|think|ensure|ensures|claim|claims"
    r"|and|or|than|such|given|provided|way|fact|is|was|are|be|of|to)$",
    re.IGNORECASE,
)
_ITEM = r"[^\W\d_][\w+#'’-]{0,40}|[\U000f0000-\U000ffffd]"
_LIST = re.compile(
    rf"(?<!\w)(?P<items>(?:(?:{_ITEM}), ){{2,6}}|(?:{_ITEM}), )(?P<before>(?:{_ITEM}),? |)"
    rf"(?P<word>and|or) (?P<last>{_ITEM})(?=[.;:)]|$)"
)
_SEQUENCE = re.compile(r"\b(?:respectively|order|first|then|next|followed|from|between)\b", re.I)
_NO_ITEM = frozenset(
    {"also", "then", "so", "too", "however", "therefore", "not", "yet", "so on", "on"}
)


def rephrased(text: str, rng: random.Random, share: float) -> str:
    """A sentence with some of its phrases turned round."""
    if rng.random() < share:
        text = _OF.sub(_possessive, text)
    if rng.random() < share:
        text = _RELATIVE.sub(_shortened, text)
    return _shuffled(text, rng) if rng.random() < share else text


def _possessive(match: re.Match[str]) -> str:
    """From "the size of the file" to "the file's size"."""
    if _NO_PART.fullmatch(match["part"]):
        return match[0]
    return f"{match['the']} {match['whole']}'s {match['part']}"


def _shortened(match: re.Match[str]) -> str:
    """From "files that are stored in" to "files stored in"."""
    if _NO_NOUN.search(match.string, max(0, match.start() - 20), match.start()):
        return match[0]
    return f" {match['verb']} "


def _shuffled(text: str, rng: random.Random) -> str:
    """An "a, b and c" in another order, where each is one word and the sentence has no other list.

    The first stays where the words before may belong to it; a place and its country stay together.
    """
    found = list(_LIST.finditer(text))
    if len(found) != 1 or text.count(",") > 7 or _SEQUENCE.search(text):
        return text
    match = found[0]
    before = match["before"]
    items = [
        *match["items"].split(", ")[:-1],
        *([before.rstrip(", ")] if before else []),
        match["last"],
    ]
    if len(items) < 3 or any(item.lower() in _NO_ITEM for item in items):
        return text
    comma = "," if before.endswith(", ") or not before else ""
    if items[1][0].isupper() and comma and len(items) == 3:
        return text
    fixed = 0 if items[0][0].isupper() or not items[0][0].isalpha() else 1
    items[fixed:] = rng.sample(items[fixed:], len(items) - fixed)
    told = f"{', '.join(items[:-1])}{comma} {match['word']} {items[-1]}"
    return text[: match.start()] + told + text[match.end() :]
