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
class Decision:
    """A choice and why it was made. Printed by whatever starts; an empty value: nothing was."""

    value: str
    reason: str


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
    repetition_penalty: float = 1.0
    """Logits of tokens that occurred, in the prompt too: divided by it when positive, else
    multiplied (arXiv 1909.05858)."""
    presence_penalty: float = 0.0  # taken from the logits of tokens that the completion has
    frequency_penalty: float = 0.0  # the same, as many times as it has them
    logit_bias: tuple[tuple[int, float], ...] = ()  # added to the logits of these tokens
    min_tokens: int = 0  # no end and no stop token before so many
    logprobs: int | None = None
    """Report log-probabilities of the tokens, and of so many likeliest ones beside each."""
    prompt_logprobs: int | None = None  # the same of the prompt's tokens, from the second on

    def __post_init__(self) -> None:
        rules = (
            # Beyond, logits divided by it or it itself could overflow float32.
            (
                self.temperature == 0 or 1e-6 <= self.temperature <= 1e30,
                f"temperature={self.temperature}: must be 0 (greedy), or in [1e-6, 1e30]",
            ),
            (self.top_k >= 0, f"top_k={self.top_k}: must be 0 (all tokens) or more"),
            (0 < self.top_p <= 1, f"top_p={self.top_p}: must be in (0, 1]"),
            (0 <= self.min_p <= 1, f"min_p={self.min_p}: must be in [0, 1]"),
            (self.max_tokens >= 1, f"max_tokens={self.max_tokens}: must be 1 or more"),
            (
                0 < self.repetition_penalty < math.inf,
                f"repetition_penalty={self.repetition_penalty}: must be above 0 (1: none)",
            ),
            *(
                (-2 <= value <= 2, f"{name}={value}: must be in [-2, 2]")
                for name, value in (
                    ("presence_penalty", self.presence_penalty),
                    ("frequency_penalty", self.frequency_penalty),
                )
            ),
            (
                all(token >= 0 and math.isfinite(bias) for token, bias in self.logit_bias),
                f"logit_bias={self.logit_bias}: must be token ids of 0 or more and finite biases",
            ),
            (
                0 <= self.min_tokens <= self.max_tokens,
                f"min_tokens={self.min_tokens}: must be in [0, max_tokens={self.max_tokens}]",
            ),
            *(
                (value is None or value >= 0, f"{name}={value}: must be 0 or more")
                for name, value in (
                    ("logprobs", self.logprobs),
                    ("prompt_logprobs", self.prompt_logprobs),
                )
            ),
            (0 <= self.seed < 2**64, f"seed={self.seed}: must be in [0, 2**64)"),
        )
        for holds, message in rules:
            if not holds:
                raise ValueError(message)


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # an end token was sampled, or a stop string is complete
    LENGTH = "length"  # max_tokens are written
    ABORT = "abort"  # whoever asked went away, or the server stopped
    ERROR = "error"  # it failed


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one prompt. Written by the decoder; token ids are the record."""

    prompt_token_ids: list[int]
    token_ids: list[int]  # as sampled, the end token included
    text: str  # a view of token_ids
    logprobs: list[float]  # of each sampled token in the model's own distribution (temperature 1)
    finish_reason: FinishReason
    metadata: dict[str, Any] = field(default_factory=dict)
