"""What is asked, and when: lengths, shared beginnings and arrival times, from a seed alone.

The same workload can be sent to any server; ``prompts.py`` gives it tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from selenite.errors import ConfigError

SHAREGPT_INPUT = (161.31, 1.2)
SHAREGPT_OUTPUT = (337.99, 0.9)
"""Mean, and sigma of the logarithm. The means are ShareGPT's as the vLLM paper measured them (arXiv
2309.06180, figure 11); that they are log-normal, and how wide, is our assumption."""
SHAREGPT_RANGE = (4, 1024)
"""Lengths are cut to it, as vLLM's benchmark leaves longer and shorter samples out."""


@dataclass(frozen=True)
class Request:
    """One request; prompts whose ``blocks`` begin alike begin with the same tokens."""

    input_len: int  # tokens
    output_len: int
    blocks: tuple[tuple[int, int], ...]
    """What the prompt is made of: (content id, tokens), in order; the tokens sum to input_len."""


@dataclass(frozen=True)
class Workload:
    """Requests and, for each, its arrival in seconds after the start; both in order of arrival."""

    requests: tuple[Request, ...]
    arrivals: tuple[float, ...]
    description: str


def fixed(count: int, input_len: int, output_len: int, prefix_len: int = 0) -> tuple[Request, ...]:
    """Equal lengths, and before each prompt's own tokens ``prefix_len`` that all share."""
    return tuple(_request(i, input_len, output_len, prefix_len) for i in range(count))


def sharegpt_like(
    count: int, seed: int, prefix_len: int = 0, scale: float = 1.0
) -> tuple[Request, ...]:
    """Lengths as people's chats with an assistant have them, times ``scale``; prefix as above."""
    rng = np.random.default_rng([seed, 0])
    inputs = _lengths(rng, count, *SHAREGPT_INPUT, scale)
    outputs = _lengths(rng, count, *SHAREGPT_OUTPUT, scale)
    return tuple(
        _request(index, input_len, output_len, prefix_len)
        for index, (input_len, output_len) in enumerate(zip(inputs, outputs, strict=True))
    )


def arrivals(count: int, rate: float, burstiness: float, seed: int) -> tuple[float, ...]:
    """Times of ``count`` arrivals at ``rate`` per second; an infinite rate is all at once.

    Gaps are gamma-distributed with shape ``burstiness``: 1 is a Poisson process, less comes in
    bursts, more is steadier. The first arrives at 0. Raises ``ConfigError``.
    """
    if not rate > 0:
        raise ConfigError(f"--request-rate {rate}: must be above 0, or inf for all at once")
    if not 0 < burstiness < math.inf:
        raise ConfigError(f"--burstiness {burstiness}: must be above 0 and finite; 1 is Poisson")
    if math.isinf(rate):
        return (0.0,) * count
    rng = np.random.default_rng([seed, 1])
    gaps = rng.gamma(burstiness, 1 / (rate * burstiness), size=max(0, count - 1))
    return (0.0, *np.cumsum(gaps).tolist())[:count]


def _lengths(
    rng: np.random.Generator, count: int, mean: float, sigma: float, scale: float
) -> list[int]:
    draws = rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, size=count)
    draws = np.clip(draws, *SHAREGPT_RANGE) * scale
    return [max(1, round(length)) for length in draws.tolist()]


def _request(index: int, input_len: int, output_len: int, prefix_len: int) -> Request:
    """Content 0 is the common prefix; each request's own content has an id of its own."""
    if input_len < 1 or output_len < 1:
        raise ConfigError(f"lengths {input_len} and {output_len}: must be 1 token or more")
    if prefix_len < 0:
        raise ConfigError(f"--prefix-len {prefix_len}: must be 0 or more")
    prefix = ((0, prefix_len),) if prefix_len else ()
    return Request(prefix_len + input_len, output_len, (*prefix, (1 + index, input_len)))
