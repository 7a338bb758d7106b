"""Records that cross the borders between folders, free of torch.

A field's comment says who writes it and what ``None`` means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

IGNORED = -1
"""A target that is not predicted: its log-probability counts for nothing and has no gradient."""

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolSpec:
    """A tool as offered to a model. Written by whoever owns the tool, read by the template."""

    name: str
    description: str
    parameters: dict[str, Any]  # JSON schema of the arguments


@dataclass(frozen=True)
class ToolCall:
    """One call that a model made."""

    name: str
    arguments: str  # JSON text exactly as the model wrote it
    id: str  # K2: "functions.NAME:IDX", IDX counting calls over the whole conversation


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str = ""
    name: str | None = None  # of the speaker; None: the role's own name
    tool_calls: tuple[ToolCall, ...] = ()  # assistant only
    tool_call_id: str | None = None  # tool only: the call that this answers
    reasoning: str | None = None  # assistant only: what it thought; None: unknown or nothing


@dataclass(frozen=True)
class SamplingParams:
    """How to draw tokens from a model's distribution.

    Raises ``ValueError`` for values out of range. ``temperature=0`` is greedy.
    """

    temperature: float = 1.0
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int = 128
    seed: int = 0  # key of the counter-based generator (ops/sampling.py)
    stop_token_ids: tuple[int, ...] = ()  # besides the model's own end tokens
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        rules = (
            # Below 1e-6 logits divided by it could overflow float32; it is greedy anyway.
            (
                self.temperature == 0 or 1e-6 <= self.temperature < math.inf,
                f"temperature={self.temperature}: must be 0 (greedy), or 1e-6 or more and finite",
            ),
            (self.top_k >= 0, f"top_k={self.top_k}: must be 0 (all tokens) or more"),
            (0 < self.top_p <= 1, f"top_p={self.top_p}: must be in (0, 1]"),
            (0 <= self.min_p <= 1, f"min_p={self.min_p}: must be in [0, 1]"),
            (self.max_tokens >= 1, f"max_tokens={self.max_tokens}: must be 1 or more"),
            (0 <= self.seed < 2**64, f"seed={self.seed}: must be in [0, 2**64)"),
        )
        for holds, message in rules:
            if not holds:
                raise ValueError(message)


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # an end token was sampled
    LENGTH = "length"  # max_tokens are written


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one prompt. Written by the decoder; token ids are the record."""

    prompt_token_ids: list[int]
    token_ids: list[int]  # as sampled, the end token included
    text: str  # a view of token_ids
    logprobs: list[float]  # of each sampled token in the model's own distribution (temperature 1)
    finish_reason: FinishReason
    metadata: dict[str, Any] = field(default_factory=dict)
