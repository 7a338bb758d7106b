"""Is a reply about its prompt at all? The share of the prompt's own words that it has.

Words of four or more letters, in lower case; those that more than one prompt in fifty has are left
out ("write", "response", "words"), since they are of the instructions and not of the subject. A
reply that repeats its prompt has all of them: the number tells junk, and is no measure of quality.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from selenite.eval.ifeval.prompts import Prompt

_COMMON = 1 / 50


def own_words(prompts: Sequence[Prompt]) -> dict[str, set[str]]:
    """Each prompt's words that few others have, by its id."""
    words = {prompt.id: set(_words(prompt.text)) for prompt in prompts}
    known = Counter(word for own in words.values() for word in own)
    most = max(1.0, _COMMON * len(prompts))
    return {key: {word for word in own if known[word] <= most} for key, own in words.items()}


def relevance(own: Mapping[str, Collection[str]], replies: Mapping[str, str]) -> float:
    """The mean share of a prompt's own words that its reply has, over prompts with any."""
    shares = [
        len(set(own[key]) & set(_words(reply))) / len(own[key])
        for key, reply in replies.items()
        if own[key]
    ]
    return sum(shares) / len(shares) if shares else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{4,}", text.lower())
