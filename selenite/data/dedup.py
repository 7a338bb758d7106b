"""Removes exact and near duplicates: MinHash signatures, banded search, then a true comparison.

Shingles are windows of bytes of the text with its whitespace collapsed, hashed and sampled with
numpy (a window is in every document's sample or in none, so similarity of samples is unbiased);
``datasketch`` finds candidates; the Jaccard similarity of the samples decides. Of similar
documents the first stays. Runs in ``prepare.py`` before the split, so nothing in the held-out
text has a near copy in the training text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from selenite.config import Config
from selenite.data.documents import Document
from selenite.errors import MissingExtraError

_WINDOW = 32  # bytes of a shingle: about five words of prose or half a line of code
_SAMPLE = 8  # one window in eight is kept
# Weights of false candidates and of missed ones when bands are chosen: the comparison that follows
# removes false candidates, nothing brings back a missed one.
_RECALL_FIRST = (0.1, 0.9)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, bits well spread: 2**64 / golden ratio


class DedupConfig(Config):
    """When two documents count as copies."""

    threshold: float = Field(default=0.8, gt=0, le=1)  # Jaccard similarity; 1: exact copies only
    num_perm: int = Field(default=48, ge=8)  # length of a MinHash signature


@dataclass(frozen=True)
class DedupReport:
    """Counts of documents; ``exact`` and ``near`` were removed."""

    documents: int
    exact: int
    near: int

    @property
    def kept(self) -> int:
        return self.documents - self.exact - self.near


def deduplicate(
    documents: Sequence[Document],
    config: DedupConfig,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Document], DedupReport]:
    """The documents without copies of earlier ones, in order, and how many were removed.

    ``progress`` is called with (done, total). Raises ``MissingExtraError`` without datasketch.
    """
    unique = _drop_exact(documents)
    near = set() if config.threshold == 1 else _near_copies(unique, config, progress)
    kept = [document for index, document in enumerate(unique) if index not in near]
    return kept, DedupReport(len(documents), len(documents) - len(unique), len(near))


def _drop_exact(documents: Sequence[Document]) -> list[Document]:
    first: dict[bytes, Document] = {}
    for document in documents:
        first.setdefault(hashlib.sha256(_collapse(document.text)).digest(), document)
    return list(first.values())


def _near_copies(
    documents: Sequence[Document],
    config: DedupConfig,
    progress: Callable[[int, int], None] | None,
) -> set[int]:
    """Indices of documents that resemble an earlier one that stays."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise MissingExtraError("datasketch", "train", "near-duplicate removal") from error
    blank = MinHash(num_perm=config.num_perm, hashfunc=_high_half)
    index = MinHashLSH(config.threshold, config.num_perm, weights=_RECALL_FIRST)
    samples: dict[int, np.ndarray] = {}
    near: set[int] = set()
    for number, document in enumerate(documents):
        sample = shingles(document.text)
        if len(sample):
            signature = blank.copy()  # a copy shares the permutations, which are slow to draw
            signature.update_batch(sample.tolist())
            similar = (jaccard(sample, samples[other]) for other in sorted(index.query(signature)))
            if any(similarity >= config.threshold for similarity in similar):
                near.add(number)
            else:
                index.insert(number, signature, check_duplication=False)
                samples[number] = sample
        if progress is not None and number % 64 == 0:
            progress(number, len(documents))
    return near


def shingles(text: str) -> np.ndarray:
    """Sorted distinct hashes (uint64) of a fixed sample of the text's byte windows."""
    raw = np.frombuffer(_collapse(text), dtype=np.uint8)
    num_windows = len(raw) - _WINDOW + 1
    if num_windows <= 0:
        return np.empty(0, dtype=np.uint64)
    hashes = raw.astype(np.uint64) + np.uint64(1)
    width = 1
    while width < _WINDOW:  # windows of twice the width from two windows of half
        hashes = _mix(hashes[:-width] * _MULTIPLIER + hashes[width:])
        width *= 2
    return np.unique(hashes[hashes % np.uint64(_SAMPLE) == 0])


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Size of the intersection over size of the union of two sets given as sorted arrays."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


def _high_half(hash_value: int) -> int:
    """The 32 bits that MinHash takes: a shingle is hashed already."""
    return hash_value >> 32


def _mix(hashes: np.ndarray) -> np.ndarray:
    """Spreads high bits into low ones, which the sampling looks at."""
    return (hashes ^ (hashes >> np.uint64(29))) * _MULTIPLIER


def _collapse(text: str) -> bytes:
    """Text with runs of whitespace made one space: indentation and wrapping do not count."""
    return " ".join(text.split()).encode(errors="surrogatepass")
