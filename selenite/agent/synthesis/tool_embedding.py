"""Tools as points: TF-IDF of their words and a truncated singular value decomposition.

Only numpy, with a fixed seed. S counts tools, V words, R dimensions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_ROUNDS = 8  # of subspace iteration; 97 % of neighbours are those of the exact decomposition
_SPARE = 10  # dimensions more than asked for while iterating
_CHUNK = 4096  # rows of a product that are made at once
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words_of(tool: Mapping[str, Any]) -> list[str]:
    """The words of a tool's name, description, parameters and their descriptions.

    ``tool`` has ``name``, ``description`` and ``parameters``, a JSON schema.
    """
    texts = [tool["name"], tool.get("description") or "", *_said(tool.get("parameters") or {})]
    return [part.lower() for text in texts for part in _PART.findall(text) if len(part) > 1]


def _said(schema: Mapping[str, Any]) -> Iterator[str]:
    """Names and descriptions of a schema's properties, at any depth."""
    for name, inner in schema.get("properties", {}).items():
        yield name
        if isinstance(inner, Mapping):
            yield str(inner.get("description", ""))
            yield from _said(inner)
    items = schema.get("items")
    if isinstance(items, Mapping):
        yield from _said(items)


class TfIdf:
    """Sparse rows of unit length: a tool's weight for each word that two tools at least have."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        counts = [Counter(words) for words in texts]
        common = Counter(word for count in counts for word in count)
        number = {w: i for i, w in enumerate(sorted(w for w, c in common.items() if c > 1))}
        rarity = {w: np.log((1 + len(texts)) / (1 + common[w])) + 1 for w in number}
        rows: list[int] = []
        columns: list[int] = []
        weights: list[float] = []
        for row, count in enumerate(counts):
            known = sorted(word for word in count if word in number)
            weight = np.array([(1 + np.log(count[w])) * rarity[w] for w in known])
            norm = np.linalg.norm(weight) or 1.0
            rows += [row] * len(known)
            columns += [number[word] for word in known]
            weights += (weight / norm).tolist()
        self.shape = (len(texts), len(number))
        self._entries = (np.array(rows, int), np.array(columns, int), np.array(weights, float))

    def times(self, x_VR: Matrix) -> Matrix:
        """The product with a dense matrix."""
        rows, columns, weights = self._entries
        return _summed(rows, columns, weights, x_VR, self.shape[0])

    def transposed_times(self, y_SR: Matrix) -> Matrix:
        """The product of the transposed rows with a dense matrix."""
        rows, columns, weights = self._entries
        order = np.argsort(columns, kind="stable")
        return _summed(columns[order], rows[order], weights[order], y_SR, self.shape[1])


def _summed(
    into: NDArray[np.int_], of: NDArray[np.int_], weights: Matrix, x: Matrix, size: int
) -> Matrix:
    """``out[i] = sum of weights * x[of]`` where ``into`` is i; ``into`` is sorted."""
    out = np.zeros((size, x.shape[1]))
    starts = np.searchsorted(into, np.arange(0, size + _CHUNK, _CHUNK))
    for low, high in pairwise(starts):
        if low == high:
            continue
        found, first = np.unique(into[low:high], return_index=True)
        out[found] = np.add.reduceat(weights[low:high, None] * x[of[low:high]], first, axis=0)
    return out


def embed(texts: Sequence[Sequence[str]], dimensions: int) -> Matrix:
    """Rows of unit length whose products are the likeness of two tools.

    Truncated SVD by subspace iteration (Halko, Martinsson and Tropp, 2011). A tool without any
    word that another one has, too, is a row of zeros.
    """
    table = TfIdf(texts)
    size = min(dimensions + _SPARE, *table.shape)
    if size == 0:
        return np.zeros((len(texts), 0))
    basis_VR = np.random.default_rng(0).standard_normal((table.shape[1], size))
    for _ in range(_ROUNDS):
        basis_SR, _ = np.linalg.qr(table.times(basis_VR))
        basis_VR, _ = np.linalg.qr(table.transposed_times(basis_SR))
    left_SR, values_R, _ = np.linalg.svd(table.times(basis_VR), full_matrices=False)
    x_SR = (left_SR * values_R)[:, :dimensions]
    norms_S = np.linalg.norm(x_SR, axis=1, keepdims=True)
    return x_SR / np.where(norms_S > 1e-9, norms_S, 1)
