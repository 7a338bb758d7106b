"""A user's words, made of the instructions that the user was given: sentences, said by "I"."""

from __future__ import annotations

import re

_PERSONS = (
    (r"\byou are\b", "I am"),
    (r"\byou're\b", "I'm"),
    (r"\byou were\b", "I was"),
    (r"\byourself\b", "myself"),
    (r"\byours\b", "mine"),
    (r"\byour\b", "my"),
    (
        r"\b(to|for|with|from|of|told|gave|(?:ask|tell|give|offer|charge|help|send)s?) you\b",
        r"\1 me",
    ),
    (r"\byou\b", "I"),
)
_PLAIN = re.compile(
    r"(about|agent|also|and|any|are|ask|because|been|but|can|cannot|could|did|do|does|for|from|get|"
    r"gives?|had|have?|her|him|his|how|into|its?|like|may|more|need|not|now|one|only|other|our|"
    r"please|say|she|should|some|such|tell|than|that|the[mny]?|their|there|these|this|those|want|"
    r"was|were|what|when|where|which|while|who|why|will|with|would|your?|yes)"
)


def sentences(text: str) -> list[str]:
    """Of a text, in order; what ends a line ends a sentence."""
    found = re.split(r"(?<=[.!?;])\s+|\n+", text)
    return [sentence.strip() for sentence in found if re.search(r"\w", sentence)]


def by_me(sentence: str) -> str:
    """The sentence with the person changed, and a capital at its start."""
    for pattern, said in _PERSONS:
        sentence = re.sub(pattern, said, sentence, flags=re.IGNORECASE)
    return sentence[:1].upper() + sentence[1:]


def consequent(sentence: str) -> str:
    """What is to be said where a condition holds: the sentence behind its first comma."""
    if not is_conditional(sentence) or "," not in sentence:
        return sentence
    said = sentence.partition(",")[2].strip()
    return re.sub(r"^(then |just )?(say|mention|tell (them|the agent|him|her)) (that )?", "", said)


def is_conditional(sentence: str) -> bool:
    """Whether it is about what the other side does first."""
    return (
        re.match(
            r"\s*(?:(?:but|and|so),? )?(if|when|once|unless|only if|after|whenever)\b",
            sentence,
            re.I,
        )
        is not None
    )


def is_about_manner(sentence: str) -> bool:
    """Whether it says how somebody is or is to talk, or forbids: nothing that a user says."""
    pattern = (
        r"\s*(you are (?!willing|ok|fine|currently|abroad|in\b)|never|always|do not|don't|be\b|"
        r"make sure|provide|for example|whenever)"
    )
    return re.match(pattern, sentence, re.I) is not None


def content_words(text: str) -> set[str]:
    """Words that say what a text is about, without their endings."""
    words = (word for word in re.findall(r"[a-z0-9]+", text.lower()) if len(word) > 2)
    bare = {re.sub(r"(ing|ed|es|s)$", "", word) for word in words}
    return {word for word in bare if not _PLAIN.fullmatch(word)}
