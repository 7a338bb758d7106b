"""What a critic looks at, and what code looks at before it is asked.

Kimi K2, section 3.2.2: *core* rubrics say what a good answer is; *prescriptive* ones forbid what
answers do that please judges. Those are patterns here: an answer that does one of them loses
against every one that does not, whatever the critic thinks of it.
"""

from __future__ import annotations

import re
from typing import Literal

Rubric = Literal["clarity", "fluency", "objectivity"]

CORE: dict[Rubric, str] = {
    "clarity": "It answers what was asked, fully and to the point, and nothing else.",
    "fluency": "It reads naturally, keeps to one language and does not repeat itself.",
    "objectivity": "It states facts as they are, without opinions of itself or flattery.",
}

_PRAISE = (
    r"(?:great|good|excellent|wonderful|fantastic|amazing|interesting|brilliant|lovely|superb|"
    r"thoughtful)\W+(?:\w+\W+){0,2}?(?:question|request|idea|task|prompt|topic|point)s?\b"
)
_OPENING = re.compile(
    rf"^\W*(?:(?:what|such) an? {_PRAISE}|(?:that is|that's|this is) an? {_PRAISE}"
    rf"|{_PRAISE}\s*(?:[!.,:;]|$))",
    re.IGNORECASE,
)
_ABOUT_ITSELF = re.compile(
    r"\b(?:this|my|the above|the following)\s+(?:\w+\s+){0,2}?"
    r"(?:answer|response|reply|text|solution)\s+(?:\w+\s+){0,2}?"
    r"(?:is|was|meets|satisfies|fulfils|fulfills|follows|addresses|covers|"
    r"adheres|complies|provides|ensures|captures|reflects)\b"
    r"|\bI(?: have|'ve)? "
    r"(?:made sure|ensured|carefully \w+ed|followed|addressed|covered|satisfied|met)"
    r"(?: (?:to|that|all|every|each|your|the) )",
    re.IGNORECASE,
)
_TO_THE_JUDGE = re.compile(
    r"\b(?:conversation|answer|response|option|assistant)\s+[AB]\b"
    r"|\b(?:the|dear|honou?rable|wise|fair)\s+(?:judge|critic|grader|evaluator)\b"
    r"|\b(?:ignore|disregard|forget)\b[^.\n]{0,40}"
    r"\b(?:rubrics?|instructions?|criteria|rules?|above)\b"
    r"|\b(?:choose|pick|prefer|rate|score|rank)\s+(?:this|me|my)\b"
    r"|\bwhich is better\b|\bwhat counts:",
    re.IGNORECASE,
)
_FORBIDDEN = {
    "praises the question": _OPENING,
    "says how good it is": _ABOUT_ITSELF,
    "speaks to its judge": _TO_THE_JUDGE,
}


def faults(reply: str) -> list[str]:
    """What a reply does that no reply may do."""
    return [reason for reason, pattern in _FORBIDDEN.items() if pattern.search(reply)]
