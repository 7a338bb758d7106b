"""A map of tools, those of a corpus and real ones, and how well the two are mixed on it.

S counts tools, R dimensions; K2's report shows such a map drawn by t-SNE, from which nothing can be
read off but a picture. Here the shares of neighbours say how mixed it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selenite.agent.randomness import stream
from selenite.agent.synthesis.diversity_counts import Record, rounded
from selenite.agent.synthesis.tool_embedding import Matrix, embed, words_of

REAL = "real"

_TOOLS = 4000  # of a corpus that are on the map
_DIMENSIONS = 200  # with 50, what is rare in the corpus, such as "git", counts for nothing
_ROWS = 512  # that are compared with all others at once
_NEIGHBOURS = 10
_DRAWS = 200  # of the larger group, to compare equal numbers
_PAIRS = 10  # of a list


@dataclass(frozen=True)
class Mixing:
    """How often the neighbours of one group are of the other."""

    rate: float
    expected: float  # in a shuffled pile of the two

    def record(self) -> Record:
        """With the ratio: 1 as in a shuffled pile, 0 where the two never meet."""
        return {
            "rate": rounded(self.rate),
            "expected": rounded(self.expected),
            "ratio": rounded(self.rate / self.expected),
        }


@dataclass(frozen=True)
class Picture:
    """What is drawn: four coordinates of each tool, and its group, an effect or ``REAL``."""

    points_S4: Matrix
    groups: tuple[str, ...]


def draw_map(
    tools: Sequence[Mapping[str, Any]], real: Sequence[Mapping[str, Any]]
) -> tuple[Record, Picture]:
    """The map's numbers and its picture.

    Args:
        tools: rows of ``tools.jsonl.zst``; of many, a sample is drawn.
        real: OpenAI's functions. Without any there is a picture and no mixing.
    """
    size = min(_TOOLS, len(tools))
    sample = stream(0, "diversity", "tools").sample(tools, size)
    x_SR = embed(list(map(words_of, [*real, *sample])), _DIMENSIONS)
    record: Record = {"synthetic": size, "real": len(real), "neighbours": _NEIGHBOURS}
    if real:
        is_real = np.arange(len(x_SR)) < len(real)
        record["all"] = _records(mixing(x_SR, is_real))
        record["balanced"] = _records(balanced_mixing(x_SR, is_real))
        record["closest"], record["loneliest"] = _pairs(x_SR, real, sample)
    groups = (*[REAL] * len(real), *(tool["effect"] for tool in sample))
    return record, Picture(plane(x_SR, 4), groups)


def mixing(x_SR: Matrix, is_real: NDArray[np.bool_], k: int = _NEIGHBOURS) -> tuple[Mixing, Mixing]:
    """Of a synthetic tool the share of real ones among the k nearest, and the other way round."""
    num_real, size = int(is_real.sum()), len(is_real)
    is_near_real = is_real[nearest(x_SR, min(k, size - 1))]
    return (
        Mixing(float(is_near_real[~is_real].mean()), num_real / (size - 1)),
        Mixing(float(1 - is_near_real[is_real].mean()), (size - num_real) / (size - 1)),
    )


def balanced_mixing(
    x_SR: Matrix, is_real: NDArray[np.bool_], k: int = _NEIGHBOURS
) -> tuple[Mixing, Mixing]:
    """The same with as many of the one as of the other: the mean over draws of the larger group."""
    groups = [np.flatnonzero(is_real), np.flatnonzero(~is_real)]
    size = min(map(len, groups))
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_DRAWS if len(groups[0]) != len(groups[1]) else 1):
        drawn = np.concatenate([rng.choice(group, size, replace=False) for group in groups])
        found.append([each.rate for each in mixing(x_SR[drawn], is_real[drawn], k)])
    synthetic, real = np.mean(found, axis=0).tolist()
    return Mixing(synthetic, size / (2 * size - 1)), Mixing(real, size / (2 * size - 1))


def nearest(x_SR: Matrix, k: int) -> NDArray[np.int_]:
    """The k likest rows of each row besides itself, in no order; of equally like ones any, so that
    copies of a tool count alike, whichever group they are of."""
    rng = np.random.default_rng(0)
    found = []
    for start in range(0, len(x_SR), _ROWS):
        likeness = np.round(x_SR[start : start + _ROWS] @ x_SR.T, 9)
        likeness += rng.uniform(0, 1e-10, likeness.shape)
        own = np.arange(len(likeness))
        likeness[own, start + own] = -np.inf
        found.append(np.argpartition(-likeness, k - 1, axis=1)[:, :k])
    return np.concatenate(found)


def plane(x_SR: Matrix, dimensions: int) -> Matrix:
    """Coordinates for a picture: the directions in which the rows differ most."""
    centred_SR = x_SR - x_SR.mean(axis=0)
    _, _, directions_RR = np.linalg.svd(centred_SR.T @ centred_SR)
    flat = np.zeros((len(x_SR), dimensions))
    found = centred_SR @ directions_RR[:dimensions].T
    flat[:, : found.shape[1]] = found
    return flat


def _records(pair: tuple[Mixing, Mixing]) -> Record:
    return {name: each.record() for name, each in zip(("synthetic", REAL), pair, strict=True)}


def _pairs(
    x_SR: Matrix, real: Sequence[Mapping[str, Any]], sample: Sequence[Mapping[str, Any]]
) -> tuple[list[list[Any]], list[list[Any]]]:
    """The real tools that have the likest synthetic one, and those that have the least like."""
    likeness = x_SR[: len(real)] @ x_SR[len(real) :].T
    best = likeness.argmax(axis=1)
    found = [
        [own["name"], f"{sample[at]['domain']} {sample[at]['name']}", rounded(likeness[row, at])]
        for row, (own, at) in enumerate(zip(real, best.tolist(), strict=True))
    ]
    found.sort(key=lambda pair: (-pair[2], pair[0]))
    return found[:_PAIRS], found[: -_PAIRS - 1 : -1]
