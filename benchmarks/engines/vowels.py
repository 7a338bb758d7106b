"""The reward of ``rl_vs_trl``, in both processes; imports nothing.

It takes no time, and differs between any two replies, so that no group is without an advantage and
both sides learn from all of them.
"""

from __future__ import annotations


def share(text: str) -> float:
    """Of vowels among the characters of a reply."""
    return sum(letter in "aeiou" for letter in text.lower()) / max(1, len(text))
