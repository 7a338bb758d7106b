"""The loss of the extra prediction layers: each predicts one token further than the one before.

    piece      a  b  c  d        at depth k, row i has seen the tokens up to i + k and predicts
    target     b  c  d  -        token i + k + 1, in its own piece of a document
    depth 1    c  d  -  -        (-: IGNORED)
    depth 2    d  -  -  -

The mean over depths of their cross-entropies is added to the loss with a weight (DeepSeek-V3,
arXiv 2412.19437, section 2.2, equations 24 and 25; each mean is over the depth's own targets).
Read by ``pretrain_task.py``.

Letters: ``T`` packed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selenite.data.packing import MicroBatch
from selenite.model.transformer import ModelOutput, Transformer
from selenite.ops.attention_context import AttentionContext
from selenite.ops.logprobs import token_logprobs_and_hits
from selenite.types import IGNORED


@dataclass(frozen=True)
class NextnOutput:
    """What the extra layers give for one micro-batch."""

    loss: Tensor  # its share of the batch's loss, mean over depths
    num_hits: Tensor  # int64: targets that are the greedy token, over all depths
    outputs: tuple[ModelOutput, ...]  # by depth


def nextn_loss(
    model: Transformer,
    hidden_TD: Tensor,
    micro_batch: MicroBatch,
    batch: Sequence[MicroBatch],
    context: AttentionContext,
    checkpoint: bool = False,
) -> NextnOutput:
    """Runs the extra layers over a micro-batch of ``batch``.

    Args:
        model: has at least one extra layer.
        hidden_TD: the model's hidden states of ``micro_batch``, with their gradient.
        micro_batch: the rows.
        batch: all micro-batches of the step, over which each depth's targets are counted.
        context: that of the model's pass over ``micro_batch``.
        checkpoint: recompute each layer in the backward pass.
    """
    device = hidden_TD.device
    losses, hits, outputs = [], [], []
    for depth in range(1, len(model.nextn) + 1):
        next_T = torch.from_numpy(next_tokens(micro_batch, depth)).to(device)
        targets_T = torch.from_numpy(depth_targets(micro_batch, depth)).to(device)
        output = model.predict_further(
            depth, hidden_TD, next_T, context.positions_T, context, checkpoint
        )
        hidden_TD = output.hidden_TD
        logprobs_T, hit_T = token_logprobs_and_hits(hidden_TD, model.head_weight, targets_T)
        losses.append(-logprobs_T.sum() / max(1, num_depth_targets(batch, depth)))
        hits.append(hit_T.sum())
        outputs.append(output)
    return NextnOutput(torch.stack(losses).mean(), torch.stack(hits).sum(), tuple(outputs))


def depth_targets(micro_batch: MicroBatch, depth: int) -> np.ndarray:
    """The target of each row at ``depth``: the one ``depth`` rows further on in its piece."""
    return _ahead(micro_batch.targets_T, micro_batch.document_T, depth)


def next_tokens(micro_batch: MicroBatch, depth: int) -> np.ndarray:
    """The token ``depth`` places after each row's own.

    Where a piece has ended it is the row's own token: such a row has no target, and only rows
    after it, which have none either, can see it.
    """
    tokens_T, piece_T = micro_batch.tokens_T, micro_batch.document_T
    following_T = _ahead(tokens_T, piece_T, 1)
    # A piece that a window or seq_len cuts goes on: its last target is the token that follows.
    following_T = np.where(following_T == IGNORED, micro_batch.targets_T, following_T)
    next_T = _ahead(following_T, piece_T, depth - 1)
    return np.where(next_T == IGNORED, tokens_T, next_T)


def num_depth_targets(batch: Sequence[MicroBatch], depth: int) -> int:
    """Targets of all micro-batches at ``depth``."""
    return sum(int((depth_targets(one, depth) != IGNORED).sum()) for one in batch)


def _ahead(values_T: np.ndarray, piece_T: np.ndarray, places: int) -> np.ndarray:
    """The value ``places`` rows further on, IGNORED where that is another piece or none."""
    ahead_T = np.full_like(values_T, IGNORED)
    kept = max(0, len(values_T) - places)
    same = piece_T[places:] == piece_T[:kept]
    ahead_T[:kept][same] = values_T[places:][same]
    return ahead_T
