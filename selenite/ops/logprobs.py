"""The one place where a log-probability is computed, for training, decoding and evaluation.

Training goes from hidden states to log-probabilities in chunks of rows, so that the logits of a
large batch are never held; backward computes each chunk's logits again.

In bfloat16 on the CPU a kernel of our own (``csrc/softmax_rows.cpp``) reads logits as the product
wrote them, so that a chunk may have more rows; a batch that is one chunk keeps its logits for
backward, which overwrites them by their gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selenite.ops import native
from selenite.ops.linear import linear
from selenite.runtime import is_batch_invariant
from selenite.types import IGNORED

# Logits held at once, in elements: 32 MiB in float32.
_CHUNK_ELEMENTS = 1 << 23
# The same where the kernel needs no copies in float32: 128 MiB. Keeping the logits spares a third
# of the backward pass; each chunk more costs a pass over the head's gradient.
_KERNEL_CHUNK_ELEMENTS = 1 << 26


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


def token_logprobs(
    hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, temperature_T: Tensor | None = None
) -> Tensor:
    """Log-probability of each row's target, float32 ``[T]``.

    Args:
        hidden_TD: final hidden states, in the compute dtype.
        head_VD: the output head's weight.
        targets_T: int64 token ids; ``IGNORED`` rows give 0, other ids outside the vocabulary raise.
        temperature_T: float32 that each row's logits are divided by, in float32 as a sampler does;
            None: 1.
    """
    return _TokenLogprobs.apply(hidden_TD, head_VD, targets_T, False, temperature_T)[0]


def token_logprobs_and_hits(
    hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor
) -> tuple[Tensor, Tensor]:
    """``token_logprobs``, and from the same logits whether each row's target is the greedy token;
    bool ``[T]``, false where ``IGNORED``."""
    return _TokenLogprobs.apply(hidden_TD, head_VD, targets_T, True, None)


def _chunks(num_rows: int, elements: int, vocab_size: int) -> list[slice]:
    step = max(1, elements // vocab_size)
    return [slice(first, first + step) for first in range(0, max(num_rows, 1), step)]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        head_VD: Tensor,
        targets_T: Tensor,
        with_hits: bool,
        temperature_T: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        head = head_VD.to(hidden_TD.dtype)
        kept_T = targets_T != IGNORED
        index_T1 = torch.where(kept_T, targets_T, 0)[:, None]
        lse_T = torch.empty(len(targets_T), device=hidden_TD.device)
        chosen_T = torch.empty_like(lse_T)
        hit_T = torch.empty_like(kept_T) if with_hits else None
        ctx.by_kernel = native.serves(hidden_TD) and temperature_T is None
        elements = _KERNEL_CHUNK_ELEMENTS if ctx.by_kernel else _CHUNK_ELEMENTS
        ctx.chunks = _chunks(len(targets_T), elements, len(head))
        for rows in ctx.chunks:
            logits_TV = _tempered(linear(hidden_TD[rows], head), temperature_T, rows)
            # Before the kernel, because this refuses targets outside the vocabulary.
            chosen_T[rows] = logits_TV.gather(1, index_T1[rows])[:, 0].float()
            if ctx.by_kernel:
                found = lse_T[rows], None if hit_T is None else hit_T[rows]
                shape = logits_TV.shape
                native.call("softmax_rows_forward", logits_TV, index_T1[rows], *found, *shape)
            else:
                lse_T[rows] = logsumexp(logits_TV)
                if hit_T is not None:
                    hit_T[rows] = logits_TV.argmax(1) == index_T1[rows, 0]
        if hit_T is not None:
            hit_T &= kept_T
            ctx.mark_non_differentiable(hit_T)
        saved_TV = logits_TV if ctx.by_kernel and len(ctx.chunks) == 1 else None
        ctx.save_for_backward(
            *(hidden_TD, head_VD, index_T1, kept_T, lse_T, saved_TV, temperature_T)
        )
        return (chosen_T - lse_T) * kept_T, hit_T

    @staticmethod
    def backward(
        ctx: Any, grad_T: Tensor, _: None
    ) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden_TD, head_VD, index_T1, kept_T, lse_T, saved_TV, temperature_T = ctx.saved_tensors
        head = head_VD.to(hidden_TD.dtype)
        grad_T1 = (grad_T * kept_T)[:, None]
        dhidden_TD = torch.empty_like(hidden_TD)
        # A frozen head (LoRA) is spared a third of the products and a gradient of its size.
        is_trained = ctx.needs_input_grad[1]
        dhead_VD = None
        to_gradient = _to_gradient_by_kernel if ctx.by_kernel else _to_gradient
        for rows in ctx.chunks:
            logits_TV = saved_TV
            if logits_TV is None:
                logits_TV = _tempered(linear(hidden_TD[rows], head), temperature_T, rows)
            low_TV = to_gradient(logits_TV, index_T1[rows], lse_T[rows], grad_T1[rows])
            low_TV = _tempered(low_TV, temperature_T, rows).to(head.dtype)
            dhidden_TD[rows] = low_TV @ head
            if is_trained:
                product_VD = low_TV.T @ hidden_TD[rows]
                dhead_VD = product_VD.float() if dhead_VD is None else dhead_VD.add_(product_VD)
        dhead_VD = None if dhead_VD is None else dhead_VD.to(head_VD.dtype)
        return dhidden_TD, dhead_VD, None, None, None


def _tempered(x_TV: Tensor, temperature_T: Tensor | None, rows: slice) -> Tensor:
    """Logits of these rows over their temperatures; or the gradient by logits from that by these
    quotients."""
    return x_TV if temperature_T is None else x_TV.float() / temperature_T[rows, None]


def _to_gradient(logits_TV: Tensor, index_T1: Tensor, lse_T: Tensor, grad_T1: Tensor) -> Tensor:
    """``grad * (one-hot - softmax)``: the gradient by the logits, in their dtype."""
    dlogits_TV = logits_TV.float().sub_(lse_T[:, None]).exp_()
    dlogits_TV.mul_(-grad_T1)
    dlogits_TV.scatter_add_(1, index_T1, grad_T1)
    return dlogits_TV.to(logits_TV.dtype)


def _to_gradient_by_kernel(
    logits_TV: Tensor, index_T1: Tensor, lse_T: Tensor, grad_T1: Tensor
) -> Tensor:
    """The same in the place of the logits. A second backward pass through kept logits is refused
    by autograd, which is told that they changed."""
    native.call("softmax_rows_backward", logits_TV, index_T1, lse_T, grad_T1, *logits_TV.shape)
    torch.autograd.graph.increment_version(logits_TV)
    return logits_TV
