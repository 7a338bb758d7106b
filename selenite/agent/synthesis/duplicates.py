"""Takes trajectories out that are too much like earlier ones: in words, in structure, or nearly.

Sequential and by number, so that the number of workers changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from selenite.agent.synthesis.config import SynthesisConfig
from selenite.errors import MissingExtraError

_WORDS = 5  # of a shingle
_PERMUTATIONS = 64


@dataclass(config=ConfigDict(extra="forbid"))  # it is read from a file, too
class Removed:
    """Ids by why they went."""

    exact: list[str] = field(default_factory=list)
    structural: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)

    @property
    def ids(self) -> frozenset[str]:
        return frozenset([*self.exact, *self.structural, *self.near])


def find_duplicates(
    rows: Iterable[Mapping[str, Any]],
    signatures: Mapping[int, Mapping[str, str]],
    config: SynthesisConfig,
) -> Removed:
    """What goes. ``signatures`` are those of the tools by domain number and name.

    Raises ``MissingExtraError`` without datasketch.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ModuleNotFoundError as error:
        raise MissingExtraError("datasketch", "agent", "finding near duplicates") from error
    seen, structures, removed = set[bytes](), Counter[str](), Removed()
    index = MinHashLSH(threshold=config.likeness, num_perm=_PERMUTATIONS)
    blank = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=int)
    shingles: dict[str, np.ndarray] = {}
    for row in rows:
        said = json.dumps(row["messages"][1:])
        digest = hashlib.blake2b(said.encode(), digest_size=16).digest()
        if digest in seen:
            removed.exact.append(row["id"])
            continue
        seen.add(digest)
        structure = _structure(row, signatures)
        structures[structure] += 1
        if row["events"] and structures[structure] > config.same_structure:
            removed.structural.append(row["id"])
            continue
        own = _shingles(row)
        sketch = blank.copy()  # with the same permutations, which take long to draw
        sketch.update_batch((own & 0xFFFFFFFF).tolist())
        likest = (_jaccard(own, shingles[other]) for other in index.query(sketch))
        if any(likeness >= config.likeness for likeness in likest):
            removed.near.append(row["id"])
            continue
        index.insert(row["id"], sketch)
        shingles[row["id"]] = own
    return removed


def _structure(row: Mapping[str, Any], signatures: Mapping[int, Mapping[str, str]]) -> str:
    """Class, template, and of each call its signature and which arguments it gives."""
    own = signatures[row["task"]["setting"]["domain"]]
    calls = [
        (own[e["tool"]], sorted(e["arguments"]), "error" in e["result"]) for e in row["events"]
    ]
    return json.dumps([row["task"]["class"], row["task"]["template"], calls])


def _shingles(row: Mapping[str, Any]) -> np.ndarray:
    """uint64: hashes of five words in a row of what user and agent say and call; each once."""
    words: list[str] = []
    for message in row["messages"][1:]:
        if message["role"] != "tool":
            words += (message["content"] or "").split()
            for call in message.get("tool_calls", ()):
                words += [call["function"]["name"], *call["function"]["arguments"].split()]
    runs = (" ".join(words[i : i + _WORDS]) for i in range(max(1, len(words) - _WORDS + 1)))
    digests = b"".join(hashlib.blake2b(run.encode(), digest_size=8).digest() for run in runs)
    return np.unique(np.frombuffer(digests, np.uint64))


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
