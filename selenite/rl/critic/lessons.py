"""What a critic learns from: attempts of which code knows the better one.

Each pair is a lesson in both orders, so that no place is better, and its attempts are of about the
same length, so that no length is. The loss is on one thing alone: which of the two letters is
likelier (Kimi K2, section 3.2.2: the critic is updated in the loop with rollouts of verifiable
tasks). Letters: ``T`` rows, ``N`` lessons of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selenite.chat.profile import ChatProfile
from selenite.chat.tokenizer import Tokenizer
from selenite.data.packing import MicroBatch
from selenite.data.piece_loader import pack
from selenite.data.pieces import Piece
from selenite.rl.critic.critic import letter_ids, verdict_ids
from selenite.rl.critic.judge import known_pairs, told
from selenite.rl.rollout import Rollout
from selenite.types import IGNORED

_MULTIPLE = 64  # of tokens in a micro-batch: kernels are made for each size
_OF_A_GROUP = 2  # pairs


@dataclass(frozen=True)
class LessonBatch:
    """Lessons of one micro-batch."""

    packed: MicroBatch
    rows_N: np.ndarray  # int64: the row that predicts the letter
    right_N: np.ndarray  # int64: its token id
    wrong_N: np.ndarray  # int64: the other letter's


def lesson_batches(
    groups: Sequence[Sequence[Rollout]],
    tokenizer: Tokenizer,
    profile: ChatProfile,
    rubrics: Sequence[str],
    num_tokens: int,
) -> list[LessonBatch]:
    """Micro-batches of at most ``num_tokens`` tokens; pairs that are longer are left out.

    Args:
        groups: of environments whose rewards code gives.
        tokenizer: the model's.
        profile: how it talks.
        rubrics: what the critic is told that counts.
        num_tokens: of a micro-batch.
    """
    letters = letter_ids(tokenizer)
    lessons = list[tuple[tuple[int, ...], int]]()  # ids, and the right letter's place
    for group in groups:
        for better, worse in known_pairs(group, _OF_A_GROUP):
            good, bad = told(better), told(worse)
            for place, (first, second) in enumerate(((good, bad), (bad, good))):
                ids = verdict_ids(
                    *(tokenizer, profile, good.told, first.attempt, second.attempt, rubrics)
                )
                if len(ids) <= num_tokens:
                    lessons.append((ids, place))
    batches, held = list[list[tuple[tuple[int, ...], int]]](), num_tokens + 1
    for lesson in lessons:
        if held + len(lesson[0]) > num_tokens:
            batches.append([])
            held = 0
        batches[-1].append(lesson)
        held += len(lesson[0])
    return [_batch(batch, letters) for batch in batches]


def right_logprobs(hidden_TD: Tensor, head_VD: Tensor, batch: LessonBatch) -> Tensor:
    """Float32 ``[N]``: of the right letter, where there are no other tokens than the two.

    Args:
        hidden_TD: of the micro-batch's rows, after the final norm.
        head_VD: the output matrix.
        batch: the lessons.
    """
    letters_N2 = torch.from_numpy(np.stack([batch.right_N, batch.wrong_N], 1)).to(head_VD.device)
    hidden_ND = hidden_TD[torch.from_numpy(batch.rows_N).to(hidden_TD.device)].float()
    logits_N2 = (head_VD[letters_N2].float() * hidden_ND[:, None]).sum(-1)
    return logits_N2.log_softmax(-1)[:, 0]


def _batch(lessons: Sequence[tuple[tuple[int, ...], int]], letters: tuple[int, int]) -> LessonBatch:
    lengths = np.array([len(ids) for ids, _ in lessons])
    places_N = np.array([place for _, place in lessons])
    letters_2 = np.array(letters, dtype=np.int64)
    return LessonBatch(
        pack([_piece(ids) for ids, _ in lessons], _MULTIPLE),
        np.cumsum(lengths) - 1,
        letters_2[places_N],
        letters_2[1 - places_N],
    )


def _piece(ids: Sequence[int]) -> Piece:
    length = len(ids)
    return Piece(
        np.array(ids, dtype=np.int64),
        np.full(length, IGNORED),
        np.arange(length),
        np.zeros(length, dtype=np.int32),
        num_bytes=0,
    )
