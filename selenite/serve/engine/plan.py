"""The memory plan of an engine: what it will hold, before anything is loaded.

Weights are read in float32 and cast one matrix after another, so loading has a peak of its own. A
step's working memory is bounded by its rows, the longest context and the sampled rows' logits.
What is left, up to a limit, is the cache's, and that of the sums of its pages' keys and of its
slots' biases, which are allocated once a request chooses blocks or has slots merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selenite.errors import OutOfMemoryError
from selenite.model.accounting import (
    cache_bytes_per_token,
    count_parameters,
    page_sum_bytes,
    slot_bias_bytes,
)
from selenite.model.config import ModelConfig
from selenite.runtime import Available, mebibytes

_SHARE = 0.5
"""Of the memory that weights and steps leave, what the cache takes where no size is asked for."""
_MOST = 4 * 2**30
"""Bytes of the cache at most where no size is asked for."""
_COMPILED = 32 * 2**20  # bytes of the code that oneDNN and MKL keep, measured with nano
_LEAST_SEQUENCES = 1  # of full length: a cache that holds fewer refuses requests the model can take


@dataclass(frozen=True)
class EnginePlan:
    """Bytes by what holds them, and the cache's size that follows."""

    weights: int
    loading: int  # more than the weights, while they are read
    step: int
    cache: int
    cache_tokens: int
    reason: str  # for the cache's size
    beside: int = 0  # of other processes that belong to the server

    @property
    def total(self) -> int:
        """At the fullest moment."""
        return self.beside + self.weights + max(self.loading, self.step + self.cache)

    def lines(self) -> list[str]:
        """The plan as lines of text."""
        rows = {
            "weights": (self.weights, "as they are kept"),
            "loading": (self.loading, "float32 weights while they are read"),
            "step": (self.step, "activations, attention and logits of the largest step"),
            "cache": (self.cache, f"{self.cache_tokens:,} tokens: {self.reason}"),
            "beside": (self.beside, "the process that compiles grammars"),
            "total": (self.total, "the larger of loading and step with cache, and the rest"),
        }
        return [f"  {name:<8}{mebibytes(size):>12}  {note}" for name, (size, note) in rows.items()]


def plan_engine(
    model: ModelConfig,
    bytes_per_value: int,
    layout: Literal["latent", "expanded"],
    available: Available,
    *,
    max_step_tokens: int,
    max_running: int,
    page_size: int,
    cache_tokens: int | None = None,
    weights: int | None = None,
    beside: int = 0,
) -> EnginePlan:
    """The plan of a model on this machine.

    Args:
        model: its config.
        bytes_per_value: of the compute dtype.
        layout: of cached entries.
        available: the limit, process not counted.
        max_step_tokens: rows of a step.
        max_running: sequences at once.
        page_size: tokens of a page; the cache holds whole pages.
        cache_tokens: what the cache must hold; None: as many as there is use and room for.
        weights: bytes of the weights; None: all in the compute dtype.
        beside: bytes of other processes that belong to the server.

    Raises ``OutOfMemoryError`` with the dial to turn where it does not fit.
    """
    count = count_parameters(model).total
    weights = count * bytes_per_value if weights is None else weights
    loading = 4 * count - weights + bytes_per_value * model.vocab_size * model.hidden_size
    step = _step_bytes(model, bytes_per_value, max_step_tokens, max_running)
    a_token = cache_bytes_per_token(model, layout, bytes_per_value)
    a_token += -(-page_sum_bytes(model, layout) // page_size) + slot_bias_bytes(model, layout)
    room = max(0, available.num_bytes - beside - weights - step)
    if cache_tokens is not None:
        tokens, reason = cache_tokens, "requested"
    else:
        tokens = max_running * model.max_positions
        reason = f"{max_running} sequences of {model.max_positions} positions"
        fit = {
            f"{_SHARE:.0%} of the memory that is left": int(_SHARE * room) // a_token,
            f"{mebibytes(_MOST)}; --kv-cache-tokens asks for more": _MOST // a_token,
        }
        why = min(fit, key=fit.__getitem__)
        least = _LEAST_SEQUENCES * model.max_positions
        if tokens > fit[why]:
            tokens, reason = fit[why], why
        if tokens < least:
            tokens, reason = least, f"one sequence of {model.max_positions} positions, the least"
    tokens = -(-tokens // page_size) * page_size
    plan = EnginePlan(weights, loading, step, tokens * a_token, tokens, reason, beside)
    if plan.total > available.num_bytes:
        raise OutOfMemoryError(
            f"the engine needs {mebibytes(plan.total)}, but there are only "
            f"{mebibytes(available.num_bytes)} ({available.limit}); {_dial(plan, available)}\n"
            "The plan:\n" + "\n".join(plan.lines())
        )
    return plan


def _dial(plan: EnginePlan, available: Available) -> str:
    room = available.num_bytes - plan.beside - plan.weights
    if plan.loading > room:
        return "the weights alone do not fit while they are read: take a smaller model"
    if plan.step + plan.cache // plan.cache_tokens > room:
        return "lower --max-num-batched-tokens"
    fit = (room - plan.step) * plan.cache_tokens // plan.cache
    return f"lower --kv-cache-tokens to {fit} or less"


def _step_bytes(model: ModelConfig, bytes_per_value: int, rows: int, max_running: int) -> int:
    """A layer's widest moments, the attention of a whole step over the longest context, and the
    float32 logits of the sampled rows (a copy, and a sorted one), and compiled products."""
    hidden = model.ffn_hidden_size
    if model.moe is not None:
        of_token = model.moe.experts_per_token + model.moe.num_shared_experts
        hidden = max(hidden, of_token * model.moe.expert_hidden_size)
        hidden += model.moe.experts_per_token * model.hidden_size
    heads = model.num_heads * (2 * model.qk_dim + 2 * model.v_dim)
    a_row = bytes_per_value * (6 * model.hidden_size + 2 * heads + 3 * hidden)
    attention = 3 * 4 * model.num_heads * model.max_positions
    logits = 3 * 4 * max_running * model.vocab_size
    return rows * (a_row + attention) + logits + _COMPILED
