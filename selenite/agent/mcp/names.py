"""Tools' names as models write them. MCP lets them hold dots, dashes, slashes and more, which chat
APIs refuse and parsers cut at; and two servers may use one name."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

_LENGTH = 64  # OpenAI's limit
_OTHER = re.compile(r"[^A-Za-z0-9_]")


def shown_names(offered: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """A name of letters, digits and underscores for each pair of a server and its tool, none twice.
    A name that is good and unique stays; names that collide begin with their server's.

    Depends on the pairs and not on their order. No pair may come twice.
    """
    pairs = sorted(offered)
    counts = Counter(_cleaned(tool) for _, tool in pairs)
    table: dict[str, tuple[str, str]] = {}
    # Names that stay as they are go first, lest one that was made takes theirs.
    for pair in sorted(
        pairs, key=lambda pair: counts[_cleaned(pair[1])] > 1 or not _is_good(pair[1])
    ):
        server, tool = pair
        wanted = _cleaned(tool) if counts[_cleaned(tool)] == 1 else _cleaned(f"{server}_{tool}")
        shown, number = wanted, 1
        while shown in table:
            number += 1
            shown = _cleaned(f"{wanted}_{number}")
        table[shown] = pair
    assert len(table) == len(set(pairs)), pairs
    return table


def _is_good(name: str) -> bool:
    return _cleaned(name) == name


def _cleaned(name: str) -> str:
    found = _OTHER.sub("_", name)
    if not found or found[0].isdigit():
        found = f"_{found}"
    if len(found) > _LENGTH:
        ending = hashlib.blake2b(name.encode(errors="replace"), digest_size=4).hexdigest()
        found = f"{found[: _LENGTH - 9]}_{ending}"
    return found
