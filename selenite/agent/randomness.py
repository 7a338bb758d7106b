"""Random numbers by name: what is drawn depends on a seed and a path alone, never on what was drawn
before, by whom, or in which process."""

from __future__ import annotations

import random


def stream(seed: int, *path: str | int) -> random.Random:
    """The generator of a place, such as ``stream(7, "finance", 12, "state")``.

    Python seeds it with the SHA-512 of the text, which is the same everywhere.
    """
    return random.Random("/".join(map(str, (seed, *path))))
