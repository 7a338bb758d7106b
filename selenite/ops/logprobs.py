"""The one place where a log-probability is computed, for training, decoding and evaluation.

Training goes from hidden states to log-probabilities in chunks of rows, so that the logits of a
whole batch are never held; backward computes each chunk's logits again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selenite.ops.linear import linear
from selenite.runtime import is_batch_invariant
from selenite.types import IGNORED

# Logits held at once, in elements: 32 MB in float32.
_CHUNK_ELEMENTS = 1 << 23


def logsumexp(logits_TV: Tensor) -> Tensor:
    """Float32 log of each row's sum of exponentials.

    In batch-invariant mode on one thread: torch splits a long row between threads, but only when
    there are few rows.
    """
    if not is_batch_invariant():
        return logits_TV.float().logsumexp(-1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return logits_TV.float().logsumexp(-1)
    finally:
        torch.set_num_threads(threads)


def log_softmax(logits_TV: Tensor) -> Tensor:
    """Float32 log-probabilities of all tokens."""
    return logits_TV.float() - logsumexp(logits_TV)[..., None]


def token_logprobs(hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor) -> Tensor:
    """Log-probability of each row's target, float32 ``[T]``.

    Args:
        hidden_TD: final hidden states, in the compute dtype.
        head_VD: the output head's weight.
        targets_T: int64 token ids; ``IGNORED`` rows give 0, other ids outside the vocabulary raise.
    """
    return _TokenLogprobs.apply(hidden_TD, head_VD, targets_T, False)[0]


def token_logprobs_and_hits(
    hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor
) -> tuple[Tensor, Tensor]:
    """``token_logprobs``, and from the same logits whether each row's target is the greedy token;
    bool ``[T]``, false where ``IGNORED``."""
    return _TokenLogprobs.apply(hidden_TD, head_VD, targets_T, True)


def _chunks(num_rows: int, vocab_size: int) -> list[slice]:
    step = max(1, _CHUNK_ELEMENTS // vocab_size)
    return [slice(first, first + step) for first in range(0, num_rows, step)]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, with_hits: bool
    ) -> tuple[Tensor, Tensor | None]:
        head = head_VD.to(hidden_TD.dtype)
        kept_T = targets_T != IGNORED
        index_T1 = torch.where(kept_T, targets_T, 0)[:, None]
        lse_T = torch.empty(len(targets_T), device=hidden_TD.device)
        chosen_T = torch.empty_like(lse_T)
        hit_T = torch.zeros_like(kept_T) if with_hits else None
        for rows in _chunks(len(targets_T), len(head)):
            logits = linear(hidden_TD[rows], head)
            lse_T[rows] = logsumexp(logits)
            chosen_T[rows] = logits.gather(1, index_T1[rows])[:, 0].float()
            if hit_T is not None:
                hit_T[rows] = (logits.argmax(1) == index_T1[rows, 0]) & kept_T[rows]
        ctx.save_for_backward(hidden_TD, head_VD, index_T1, kept_T, lse_T)
        if hit_T is not None:
            ctx.mark_non_differentiable(hit_T)
        return (chosen_T - lse_T) * kept_T, hit_T

    @staticmethod
    def backward(ctx: Any, grad_T: Tensor, _: None) -> tuple[Tensor, Tensor | None, None, None]:
        hidden_TD, head_VD, index_T1, kept_T, lse_T = ctx.saved_tensors
        head = head_VD.to(hidden_TD.dtype)
        grad_T1 = (grad_T * kept_T)[:, None]
        dhidden_TD = torch.empty_like(hidden_TD)
        # A frozen head (LoRA) is spared a third of the products and a gradient of its size.
        is_trained = ctx.needs_input_grad[1]
        dhead_VD = torch.zeros_like(head_VD, dtype=torch.float32) if is_trained else None
        for rows in _chunks(len(lse_T), len(head)):
            dlogits = linear(hidden_TD[rows], head).float().sub_(lse_T[rows, None]).exp_()
            dlogits.mul_(-grad_T1[rows])
            dlogits.scatter_add_(1, index_T1[rows], grad_T1[rows])
            low = dlogits.to(hidden_TD.dtype)
            dhidden_TD[rows] = low @ head
            if dhead_VD is not None:
                dhead_VD += low.T @ hidden_TD[rows]
        return dhidden_TD, None if dhead_VD is None else dhead_VD.to(head_VD.dtype), None, None
