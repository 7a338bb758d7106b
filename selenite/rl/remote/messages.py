"""What goes between a trainer and its engines in other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from selenite.errors import SeleniteError, UnavailableError
from selenite.model.config import ModelConfig
from selenite.rl.weights.flat import Manifest
from selenite.serve.engine.engine import EngineConfig
from selenite.serve.engine.request import Request, SampledToken
from selenite.types import FinishReason, SamplingParams


@dataclass(frozen=True)
class HostSettings:
    """What an engine is made of, but for its weights."""

    model: ModelConfig
    dtype: torch.dtype
    device: str
    engine: EngineConfig
    threads: int  # of torch
    batch_invariant: bool


@dataclass(frozen=True)
class Weights:
    """A version of the weights, for whoever can reach its place."""

    manifest: Manifest
    place: Any  # a number of ``SharedMemoryStore``, or Ray's reference to an object


@dataclass(frozen=True)
class Sent:
    """A request, as it is sent."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    end_token_ids: frozenset[int]
    sample: int
    salt: str
    leader: str | None  # its id
    wants_routing: bool

    @classmethod
    def of(cls, request: Request) -> Sent:
        """A request that has not begun."""
        assert not request.completion
        assert request.grammar is request.pooler is request.stops is request.adapter is None
        assert not request.banned_ids
        return cls(
            request.id,
            request.prompt,
            request.params,
            request.end_token_ids,
            request.sample,
            request.salt,
            None if request.leader is None else request.leader.id,
            request.wants_routing,
        )


@dataclass(frozen=True)
class Accepted:
    """A request is queued, or cannot be."""

    id: str
    error: Exception | None


@dataclass(frozen=True)
class Progress:
    """What is new of a request."""

    id: str
    tokens: tuple[SampledToken, ...]  # since the last one
    expert_ids: tuple[np.ndarray, ...]  # of these, where asked for (``Request.expert_ids``)
    prompt_logprobs: tuple[SampledToken, ...]  # at the end
    finish_reason: FinishReason | None
    error: Exception | None


@dataclass(frozen=True)
class Answer:
    """To a call over a pipe."""

    call: int
    result: Any
    error: Exception | None


def portable(error: BaseException) -> Exception:
    """An error that another process can raise."""
    if isinstance(error, SeleniteError):
        return error
    return UnavailableError(f"{type(error).__name__}: {error}")
